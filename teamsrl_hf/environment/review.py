"""Judging a rewrite: the rules of the gate first, then a reviewer's verdict; and the rewards of a chain."""

import re
from collections.abc import Sequence

import numpy as np

from ..models.base import Generator, Request, Sampling, Task
from ..text.features import added_grams, hashed_grams, hashed_vectors
from ..text.operations import Operation, review_messages
from ..text.rules import INVENTS, violations
from ..types import Reason, Review, Role, TaskKind, Trajectory, Transition, Verdict

REVIEW_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)
_VERDICT = re.compile(r"\b(not[\s_-]+equal|unequal|different|equal)\b", re.I)
_LEADING = re.compile(
    r"""\A[\s"'“”‘’*`(\[]*(?:(?:the\s+)?(?:verdict|answer|result)\s*(?:is)?\s*:?\s*)?["'“”‘’*`(\[]*
    (?P<verdict>not[\s_-]+equal|unequal|different|equal)["'“”‘’*`)\]]*\s*(?P<after>[.,;:!—\n–-]|$|because\b|since\b|as\b)""",
    re.I | re.X,
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


async def review(
    instruction: str,
    rewrite: str,
    earlier: Sequence[str],
    operations: Operation | Sequence[Operation],
    reviewer: Generator,
    edit: str | None = None,
    examples: Sequence[str] = (),
) -> Review:
    """Review the result of one operation or of a plan of several.

    The reviewer is asked only where no rule decides, which saves calls. `edit` and `examples` are those of
    `rules.Rewrite`.
    """
    broken = violations(instruction, rewrite, operations, edit, earlier, examples)
    if broken:
        nothing_gained = broken[0] == Reason.UNCHANGED
        return Review(Verdict.EQUAL if nothing_gained else Verdict.NOT_EQUAL, broken)
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
    """Per step 1 where the rewrite passed the gate and the reviewer, else 0; None where a call failed."""
    return [
        [None if t.failure else float(t.review.passed) for t in trajectory.transitions] for trajectory in trajectories
    ]


def novelty_reward(trajectories: Sequence[Trajectory]) -> list[list[float | None]]:
    """Per step 1 − the highest cosine similarity of what it adds to any text or addition of the batch before it.

    An addition is the words, and pairs of words, that a rewrite has more often than its instruction; for `breadth`,
    which invents another instruction, the whole text. So a step is paid for asking what nobody in the batch asked, and
    not for leaving its subject. 0 where the rewrite did not pass, or adds nothing; None where a call failed.
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
    additions = [_addition(trajectories[b].transitions[t]) for b, t in passed]
    seeds = hashed_vectors([trajectory.seed.text for trajectory in trajectories])
    vectors = np.concatenate([seeds, hashed_grams(additions)])
    similarity = vectors @ vectors.T
    for row, ((b, t), added) in enumerate(zip(passed, additions), start=len(trajectories)):
        if added:
            rewards[b][t] = float(1.0 - np.clip(similarity[row, :row].max(), 0.0, 1.0))
    return rewards


def _addition(transition: Transition) -> tuple[str, ...]:
    source = "" if transition.operation in INVENTS else transition.instruction
    return added_grams(source, transition.rewrite)


# The rewards that policies and bandits learn from unless the user passes others.
DEFAULT_REWARDS = (validity_reward, novelty_reward)
