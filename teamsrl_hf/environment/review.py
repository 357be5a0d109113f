"""Judging a rewrite: the rules of the gate first, then a reviewer's verdict; and the rewards of a chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..models.base import Completion, Generator, Request, Sampling, Task, Wrapper
from ..text.features import added_grams, hashed_grams, hashed_vectors
from ..text.operations import Operation
from ..text.questions import DIFFERENT, HARDER, Question, select_questions
from ..text.rules import INVENTS, violations
from ..types import Reason, Review, Role, TaskKind, Trajectory, Transition, Verdict

REVIEW_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)


@dataclass(frozen=True)
class Reviewing:
    """What a reviewer is asked about each rewrite, in this order, until an answer rejects it.

    Attributes:
        questions: Names of questions, see `text.questions`.
        offsets: For each question, how much likelier (in nats) the accepting word must be than the other where the
            model answers by likelihood; all 0 by default. `calibration` finds them.

    Raises:
        UserError: There is no such question, none is named, or there is not one offset for each.
    """

    questions: tuple[str, ...] = (DIFFERENT.name,)
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        select_questions(self.questions)
        if self.offsets and len(self.offsets) != len(self.questions):
            raise UserError(
                f"There are {len(self.offsets)} offsets for {len(self.questions)} questions; give as many."
            )

    @property
    def asked(self) -> list[tuple[Question, float]]:
        """Each question with its offset."""
        offsets = self.offsets if self.offsets else (0.0,) * len(self.questions)
        return list(zip(select_questions(self.questions), offsets, strict=True))


class Reviewer(Wrapper):
    """A model that is asked as `reviewing` says; any other model is asked whether the rewrite is different.

    Raises:
        UserError: The rulebook is to answer a question that it has no rules for.
    """

    def __init__(self, generator: Generator, reviewing: Reviewing):
        super().__init__(generator)
        self.reviewing = reviewing
        if generator.model == "rulebook" and reviewing.questions != (DIFFERENT.name,):
            raise UserError(
                f"The rulebook answers the review question {DIFFERENT.name!r} alone; name a language model."
            )


def reviewing_of(reviewer: Generator) -> Reviewing:
    """How a reviewer is asked."""
    return getattr(reviewer, "reviewing", None) or Reviewing()


def parse_verdict(answer: str) -> Verdict:
    """The verdict in a reviewer's answer to "is it different": UNREADABLE when there is none or there are both.

    >>> answers = ("Not Equal", '"equal."', "Different: it adds a limit", "They are equal", "Equal or Not Equal?")
    >>> [parse_verdict(answer) for answer in answers]
    ['not_equal', 'equal', 'not_equal', 'unreadable', 'unreadable']
    """
    return _VERDICTS[DIFFERENT.read(answer)]


_VERDICTS = {True: Verdict.NOT_EQUAL, False: Verdict.EQUAL, None: Verdict.UNREADABLE}


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
    names = [operation.name for operation in ([operations] if isinstance(operations, Operation) else operations)]
    verdict = Review(Verdict.NOT_EQUAL)
    for question, offset in reviewing_of(reviewer).asked:
        if question == HARDER and INVENTS.issuperset(names):
            continue  # Such a rewrite is to be as hard as the text before.
        verdict = await ask(question, instruction, rewrite, reviewer, offset=offset)
        if not verdict.passed:
            break
    return verdict


async def ask_verdict(instruction: str, rewrite: str, reviewer: Generator, role: Role = Role.REVIEWER) -> Review:
    """The verdict of a model alone on whether a rewrite is different, without any rule."""
    return await ask(DIFFERENT, instruction, rewrite, reviewer, role)


async def ask(
    question: Question,
    instruction: str,
    rewrite: str,
    reviewer: Generator,
    role: Role = Role.REVIEWER,
    offset: float = 0.0,
) -> Review:
    """A model's answer to one question about a rewrite; `offset` is one of `Reviewing.offsets`."""
    completion = await reviewer(question_request(question, instruction, rewrite, role))
    if completion.error:
        return Review(Verdict.UNREADABLE, (Reason.CALL_FAILED,), completion.model, completion.error)
    accepted = accepts(question, completion, offset)
    if accepted is False and question != DIFFERENT:
        return Review(Verdict.NOT_EQUAL, (question.reason,), completion.model)
    return Review(_VERDICTS[accepted], (), completion.model)


def accepts(question: Question, answer: Completion, offset: float = 0.0) -> bool | None:
    """Whether an answer accepts, by the likelihoods of its words where they are known; None if it is unreadable."""
    return answer.scores[0] - answer.scores[1] >= offset if answer.scores else question.read(answer.text)


def question_request(question: Question, instruction: str, rewrite: str, role: Role = Role.REVIEWER) -> Request:
    """The request that asks one question; models that answer from a task know no other than "is it different"."""
    task = Task(TaskKind.REVIEW, (instruction, rewrite)) if question == DIFFERENT else None
    messages = question.messages(instruction, rewrite)
    return Request(role, messages, REVIEW_SAMPLING, task=task, choices=question.choices)


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
