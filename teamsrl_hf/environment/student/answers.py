"""Rewards from a student's answers that code checks: in go chains and models, out come reward functions.

Each asks for `samples` answers to every rewrite that passed review and carries verifiers; an answer passes if it keeps
all of them. Of a step without a verifier, or whose calls all failed, nothing is said. The models are asked as any
others: wrap them with `Ledger.record`, and no answer is paid for twice.

    reward_funcs=[validity_reward, learnability_reward(ledger.record(student), samples=4)]
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from ...errors import UserError, check_number, most_failed
from ...models.base import Completion, Generator, Request, Sampling, Task
from ...types import Role, TaskKind, Trajectory, Transition, Verifier
from ...verifiers import verified

StepRewards = list[list[float | None]]
StudentReward = Callable[[Sequence[Trajectory]], Awaitable[StepRewards]]
STUDENT_SAMPLING = Sampling(temperature=0.7, top_p=0.95, max_tokens=512)

Question = tuple[str, tuple[Verifier, ...]]  # An instruction and what its answers must keep.


def verified_reward(student: Generator, samples: int = 4, sampling: Sampling = STUDENT_SAMPLING) -> StudentReward:
    """A reward function: the share p of a student's answers that pass, in [0, 1].

    Args:
        student: The model to ask.
        samples: Answers to each rewrite; their sample indices are 0, 1, and so on.
        sampling: How to sample them; several answers need a temperature above 0.

    Raises:
        UserError: `samples` is no whole number of at least 1, or all answers would be the same.
    """
    _check(samples, sampling)

    async def verified_reward(trajectories: Sequence[Trajectory]) -> StepRewards:
        return _by_step(trajectories, await _rates(_questions(trajectories), student, samples, sampling))

    return verified_reward


def learnability_reward(student: Generator, samples: int = 4, sampling: Sampling = STUDENT_SAMPLING) -> StudentReward:
    """A reward function: p (1 - p), in [0, .25]; the most for rewrites that a student gets right half of the time.

    It is the variance of a pass, without which reinforcement learning learns nothing (arXiv 2502.12272). The arguments
    are those of `verified_reward`; `samples` is at least 2, since p is 0 or 1 after one.
    """
    _check(samples, sampling, least=2)

    async def learnability_reward(trajectories: Sequence[Trajectory]) -> StepRewards:
        rates = await _rates(_questions(trajectories), student, samples, sampling)
        return _by_step(trajectories, {question: p * (1 - p) for question, p in rates.items()})

    return learnability_reward


def gap_reward(
    student: Generator, strong: Generator, samples: int = 4, sampling: Sampling = STUDENT_SAMPLING
) -> StudentReward:
    """A reward function: the chance that an answer of a strong model passes and one of the student fails, in [0, 1].

    The arguments are those of `verified_reward`; `strong` is asked as the student is.
    """
    _check(samples, sampling)

    async def gap_reward(trajectories: Sequence[Trajectory]) -> StepRewards:
        asked = _questions(trajectories)
        weak, best = await asyncio.gather(*(_rates(asked, model, samples, sampling) for model in (student, strong)))
        gaps = {question: best[question] * (1 - weak[question]) for question in weak if question in best}
        return _by_step(trajectories, gaps)

    return gap_reward


def _check(samples: int, sampling: Sampling, least: int = 1) -> None:
    check_number("samples", samples, least, whole=True)
    if samples > 1 and sampling.temperature == 0:
        raise UserError(f"At temperature 0 all {samples} answers would be the same; give a higher one, such as 0.7.")


def question_of(step: Transition) -> Question | None:
    """What to ask of a step: its rewrite, if it passed review and carries verifiers."""
    return (step.rewrite, step.verifiers) if step.review.passed and step.verifiers and not step.failure else None


def _questions(trajectories: Iterable[Trajectory]) -> list[Question]:
    """The questions of all steps, each once: the same rewrite may stand in several chains."""
    found = (question_of(step) for trajectory in trajectories for step in trajectory.transitions)
    return list(dict.fromkeys(question for question in found if question is not None))


def _by_step(trajectories: Iterable[Trajectory], values: Mapping[Question, float]) -> StepRewards:
    def value(step: Transition) -> float | None:
        question = question_of(step)
        return None if question is None else values.get(question)

    return [[value(step) for step in trajectory.transitions] for trajectory in trajectories]


async def _rates(
    questions: Sequence[Question], model: Generator, samples: int, sampling: Sampling
) -> dict[Question, float]:
    """The share of a model's answers that pass, by question; questions whose calls all failed are left out.

    Raises:
        CallsRefused: Most calls failed, so that the rewards would say little of the model.
    """
    asked = [(question, number) for question in questions for number in range(samples)]
    answers = await asyncio.gather(*(model(_request(text, number, sampling)) for (text, _), number in asked))
    check_answers(answers, model)
    passed: dict[Question, list[bool]] = {}
    for (question, _), answer in zip(asked, answers):
        if not answer.error:
            passed.setdefault(question, []).append(all(verified(answer.text, question[1])))
    return {question: sum(found) / len(found) for question, found in passed.items()}


def check_answers(answers: Sequence[Completion], model: Generator) -> None:
    """CallsRefused where most of a model's calls failed."""
    errors = [answer.error for answer in answers if answer.error]
    if len(errors) > max(1, len(answers) - len(errors)):
        raise most_failed(f"the student {model.model!r}", errors, len(answers) - len(errors))


def _request(text: str, number: int, sampling: Sampling) -> Request:
    message = {"role": "user", "content": text}
    return Request(Role.STUDENT, (message,), sampling, number, Task(TaskKind.ANSWER, (text,)))
