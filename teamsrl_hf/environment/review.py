"""Judging a rewrite and an answer: elimination rules first, then a reviewer's verdict; and what a chain is paid for
both.

The rules are the four of Evol-Instruct (arXiv 2304.12244) and one more, since the official TeaMs-RL data leaks
clauses of its own prompt: 1 nothing gained (`equal`, `unchanged`, `repeats_earlier`), 2 a short apology (`refusal`),
3 an answer of stop words and punctuation (`empty_response`), 4 words or clauses of the prompt (`template_leak`).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..models.base import Generator, Request, Sampling, Task
from ..text.features import hashed_vectors
from ..text.gate.refusals import declines_answer, declines_rewrite
from ..text.operations import REVIEW_FRAME, REWRITE_FRAME, Operation, review_messages
from ..text.plans import PACK_FRAME, PLAN_FRAME
from ..text.tokens import control_token
from ..text.words import normalise, words
from ..types import Finish, Reason, Review, Role, TaskKind, Trajectory, Transition, Verdict

REVIEW_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)
MAX_CHARACTERS = 20_000

_FENCE_LINE = r"\[(?:instruction|answer|item|end|first|second)(?: \d+)? [0-9a-f]{12}\]"
_FENCES = re.compile(_FENCE_LINE, re.I)
_MARKERS = re.compile(
    r"\b(?:the|my|your|#+)?\s*(?:given|rewritten|created|original|new|finished)[ _-]prompts?\b#*"
    rf"|{_FENCE_LINE}|\b2,?048\s+words\b|\bmarker lines?\b",
    re.I,
)
_IN_MARKERS = ("prompt", "[", "048", "marker")
_VERDICT = re.compile(r"\b(not[\s_-]+equal|unequal|different|equal)\b", re.I)
_LEADING = re.compile(
    r"""\A[\s"'“”‘’*`(\[]*(?:(?:the\s+)?(?:verdict|answer|result)\s*(?:is)?\s*:?\s*)?["'“”‘’*`(\[]*
    (?P<verdict>not[\s_-]+equal|unequal|different|equal)["'“”‘’*`)\]]*\s*(?P<after>[.,;:!—\n–-]|$|because\b|since\b|as\b)""",
    re.I | re.X,
)
_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "but",
        "if",
        "then",
        "of",
        "to",
        "in",
        "on",
        "at",
        "by",
        "for",
        "with",
        "from",
        "as",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "i",
        "you",
        "he",
        "she",
        "we",
        "they",
        "me",
        "my",
        "your",
        "his",
        "her",
        "our",
        "their",
        "not",
        "no",
        "yes",
        "so",
        "do",
        "does",
        "did",
        "have",
        "has",
        "had",
        "will",
        "would",
        "can",
        "could",
        "ok",
        "okay",
        "sure",
        "here",
        "there",
        "what",
        "which",
        "who",
    ]
)


def parse_verdict(answer: str) -> Verdict:
    """The verdict in a reviewer's answer: UNREADABLE when there is none or there are both.

    >>> [parse_verdict(a) for a in ("Not Equal", '"equal."', "Different: it adds a limit", "Equal or Not Equal?")]
    ['not_equal', 'equal', 'not_equal', 'unreadable']
    """
    leading = _LEADING.match(answer)
    if leading:
        return _canonical(leading["verdict"])
    if re.search(r"\bnot\s+(?:\w+\s+)?different\b|\bneither\b", answer, re.I):
        return Verdict.UNREADABLE
    found = {_canonical(verdict) for verdict in _VERDICT.findall(answer)}
    return found.pop() if len(found) == 1 else Verdict.UNREADABLE


def _canonical(verdict: str) -> Verdict:
    return Verdict.EQUAL if verdict.lower() == Verdict.EQUAL else Verdict.NOT_EQUAL


def instruction_violations(
    instruction: str, rewrite: str, earlier: Sequence[str], operations: Operation | Sequence[Operation]
) -> tuple[Reason, ...]:
    """Names of the rules `rewrite` breaks, the first of them the reason; `earlier` are the chain's texts before
    `instruction`.
    """
    plain = normalise(rewrite)
    if not plain:
        return (Reason.EMPTY,)
    if plain == normalise(instruction):
        return (Reason.UNCHANGED,)
    broken = {
        Reason.REPEATS_EARLIER: any(plain == normalise(text) for text in earlier),
        Reason.REFUSAL: declines_rewrite(rewrite) and not declines_rewrite(instruction),
        Reason.TEMPLATE_LEAK: leaks_template(rewrite, instruction, operations),
        Reason.CONTROL_TOKENS: control_token(rewrite) is not None,
        Reason.TOO_LONG: len(rewrite) > MAX_CHARACTERS,
    }
    return tuple(rule for rule, is_broken in broken.items() if is_broken)


def leaks_template(rewrite: str, instruction: str, operations: Operation | Sequence[Operation]) -> bool:
    """Whether `rewrite` holds a marker or six words in a row of the prompt that `instruction` did not hold itself."""
    lower = rewrite.lower()
    # A search for plain words is a hundred times as fast as one for the pattern, and nearly always enough.
    marker = _MARKERS.search(rewrite) if any(word in lower for word in _IN_MARKERS) else None
    if marker and marker.group().strip().lower() not in instruction.lower():
        return True
    used = (operations,) if isinstance(operations, Operation) else sorted(set(operations), key=lambda o: o.name)
    leaked = _grams_of_template(rewrite, tuple(used))
    return bool(leaked and leaked - _six_grams(instruction))


@lru_cache(maxsize=10_000)
def _grams_of_template(text: str, operations: tuple[Operation, ...]) -> frozenset[str]:
    # Remembered in place of all grams of a text: nearly always there are none, and a long text has thousands.
    grams, starts = _template_grams(operations)
    tokens = words(text)
    near = [i for i, pair in enumerate(pairwise(tokens)) if pair in starts]
    return frozenset(" ".join(tokens[i : i + 6]) for i in near) & grams


def _six_grams(text: str) -> frozenset[str]:
    tokens = words(text)
    return frozenset(" ".join(tokens[i : i + 6]) for i in range(len(tokens) - 5))


@lru_cache(maxsize=256)
def _template_grams(operations: tuple[Operation, ...]) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """Six words in a row of the prompts, and the first two of each, by which they are looked for."""
    frames = (REWRITE_FRAME, REVIEW_FRAME, PLAN_FRAME, PACK_FRAME)
    grams = frozenset().union(*map(_six_grams, (*frames, *(operation.sentence for operation in operations))))
    return grams, frozenset((first, second) for first, second, _ in (gram.split(" ", 2) for gram in grams))


def response_violations(response: str, finish_reason: Finish = Finish.STOP) -> tuple[Reason, ...]:
    """Names of the rules an answer breaks.

    >>> response_violations("Sorry, I cannot help with that.")
    ('refusal',)
    >>> response_violations("It is what it is ...")
    ('empty_response',)
    """
    tokens = words(response)
    broken = {
        Reason.CUT_OFF: finish_reason == Finish.LENGTH,
        Reason.REFUSAL: declines_answer(response),
        Reason.EMPTY_RESPONSE: all(token in _STOP_WORDS for token in tokens),
        Reason.TEMPLATE_LEAK: "[" in response and bool(_FENCES.search(response)),
        Reason.CONTROL_TOKENS: control_token(response) is not None,
    }
    return tuple(rule for rule, is_broken in broken.items() if is_broken)


async def review(
    instruction: str,
    rewrite: str,
    earlier: Sequence[str],
    operations: Operation | Sequence[Operation],
    reviewer: Generator,
) -> Review:
    """Review the result of one operation or of a plan of several.

    The reviewer is asked only where no rule decides, which saves calls.
    """
    violations = instruction_violations(instruction, rewrite, earlier, operations)
    if violations:
        nothing_gained = violations[0] == Reason.UNCHANGED
        return Review(Verdict.EQUAL if nothing_gained else Verdict.NOT_EQUAL, violations)
    return await ask_verdict(instruction, rewrite, reviewer)


async def ask_verdict(instruction: str, rewrite: str, reviewer: Generator, role: Role = Role.REVIEWER) -> Review:
    """The verdict of a model alone, without any rule."""
    task = Task(TaskKind.REVIEW, (instruction, rewrite))
    request = Request(role, review_messages(instruction, rewrite), REVIEW_SAMPLING, task=task)
    completion = await reviewer(request)
    if completion.error:
        return Review(Verdict.UNREADABLE, (Reason.CALL_FAILED,), completion.model, completion.error)
    return Review(parse_verdict(completion.text), (), completion.model)


def validity_reward(trajectories: Sequence[Trajectory]) -> list[list[float | None]]:
    """Per step 1 where the rewrite passed, 0 where it gained nothing, −1 where it breaks another rule.

    None where a call failed: nothing is known of the operation then.
    """

    def pay(transition: Transition) -> float | None:
        review = transition.review
        if transition.failure:
            return None
        if review.passed:
            return 1.0
        nothing_gained = not review.violations or review.violations[0] in (Reason.UNCHANGED, Reason.REPEATS_EARLIER)
        return 0.0 if nothing_gained else -1.0

    return [[pay(transition) for transition in trajectory.transitions] for trajectory in trajectories]


def novelty_reward(trajectories: Sequence[Trajectory]) -> list[list[float | None]]:
    """Per step 1 − the highest cosine similarity to any text of the batch before it; 0 where the rewrite did not pass.

    None where a call failed.
    "Before" means: all seeds, then step by step and within a step in the order of the batch, the way a dataset grows.
    """
    rewards = [[None if t.failure else 0.0 for t in trajectory.transitions] for trajectory in trajectories]
    steps = max((len(trajectory.transitions) for trajectory in trajectories), default=0)
    passed = [
        (b, t)
        for t in range(steps)
        for b, trajectory in enumerate(trajectories)
        if t < len(trajectory.transitions) and trajectory.transitions[t].review.passed
    ]
    texts = [trajectory.seed.text for trajectory in trajectories]
    texts += [trajectories[b].transitions[t].rewrite for b, t in passed]
    vectors = hashed_vectors(texts)
    similarity = vectors @ vectors.T
    for row, (b, t) in enumerate(passed, start=len(trajectories)):
        rewards[b][t] = float(1.0 - np.clip(similarity[row, :row].max(), 0.0, 1.0))
    return rewards
