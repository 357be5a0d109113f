"""Teaching the rewriting model: in go seeds and operations, out come prompts for TRL and rewards of what it says.

A row asks for one edit, or for a whole rewrite, as an evolver would. The rewriter's answer makes a step, as in a
rollout: the gate and the reviewer see it, and the reward functions of the operation policy pay for it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..models.base import Completion, Generator, Request
from ..text.edits import Messages, edit_messages
from ..text.operations import Operation, rewrite_messages
from ..types import Finish, Seed, Trajectory, Transition
from .review import DEFAULT_REWARDS
from .rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from .rollout import carry_out, run_all

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model said when it was asked to carry out `operation` on `instruction`; `cut` if it found no end."""

    operation: Operation
    instruction: str
    text: str
    cut: bool = False


def rewriting_rows(seeds: Sequence[Seed], operations: Sequence[Operation]) -> list[Row]:
    """A row for every seed and operation: `prompt` (chat messages), and `instruction`, `seed_id`, `operation`.

    The prompt is the first that an evolver would send, so an edit's where the operation has edits for the seed.
    """
    return [
        {
            "prompt": list(_messages(operation, seed.text)),
            "instruction": seed.text,
            "seed_id": seed.id,
            "operation": operation.name,
        }
        for seed in seeds
        for operation in operations
    ]


def rewriter_reward(
    operations: Sequence[Operation],
    reviewer: Generator,
    max_completion_length: int | None = None,
    reward_funcs: Sequence[RewardFunction] = DEFAULT_REWARDS,
    reward_weights: Sequence[float] | None = None,
) -> Callable[..., list[float]]:
    """A reward function for TRL's `GRPOTrainer` on the rows of `rewriting_rows`.

    It pays an answer what the reward functions pay for a chain of this one step; the answers of a batch are one batch
    of chains. An answer of which no rewrite can be made gets 0.

    Args:
        max_completion_length: Tokens at which the trainer cuts an answer; None if it never does.

    Raises:
        UserError: There is not one weight for each reward function.
    """
    by_name = {operation.name: operation for operation in operations}
    weights = check_weights(reward_weights, reward_funcs)

    def rewriter_reward(completions, instruction, operation, completion_ids, **columns: Any) -> list[float]:
        cut = [len(ids) >= (max_completion_length or math.inf) for ids in completion_ids]
        answers = [
            Answer(by_name[name], text, said(completion), was_cut)
            for name, text, completion, was_cut in zip(operation, instruction, completions, cut, strict=True)
        ]
        chains = [
            Trajectory(Seed(str(n), step.instruction), (step,)) for n, step in enumerate(steps_of(answers, reviewer))
        ]
        return weighted_sum(call_rewards(reward_funcs, chains), weights)[:, 0].tolist()

    return rewriter_reward


def steps_of(answers: Sequence[Answer], reviewer: Generator) -> list[Transition]:
    """The step that each answer makes, reviewed as a rollout's."""
    return run_all([step_of(answer, reviewer) for answer in answers])


async def step_of(answer: Answer, reviewer: Generator) -> Transition:
    """The step that one answer makes."""
    operation, text = _with_one_edit(answer.operation, answer.instruction), answer.instruction
    return await carry_out((text,), operation, _Known(answer), reviewer)


class _Known:
    """A generator whose only answer is known already."""

    model = "rewriter"

    def __init__(self, answer: Answer):
        self.answer = answer

    async def __call__(self, request: Request) -> Completion:
        finish = Finish.LENGTH if self.answer.cut else Finish.STOP
        return Completion(self.answer.text, self.model, finish_reason=finish)


def said(completion: str | Sequence[Mapping[str, str]]) -> str:
    """What a completion of TRL says: it is a text, or messages of which the last one holds the text."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _with_one_edit(operation: Operation, text: str) -> Operation:
    """The operation with the edit alone that an evolver asks for first."""
    return replace(operation, edits=operation.edits_for(text)[:1])


def _messages(operation: Operation, text: str) -> Messages:
    edits = operation.edits_for(text)
    return edit_messages(edits[0], text) if edits else rewrite_messages(operation, text)
