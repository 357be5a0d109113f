"""Evolution as an environment for other trainers: in goes a seed, out come tools for a language model, and a reward.

The operations are tools, and so is `rewrite`, which takes the model's own words. Each call makes a step of a chain, as
in a rollout: the gate and the reviewer see it, and the reward functions of the operation policy pay for the chain.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..calls import run_async
from ..errors import UserError, check_number
from ..models.base import Generator, Sampling
from ..text.operations import OPERATIONS, Operation
from ..types import Seed, State, Trajectory, Transition
from .review import DEFAULT_REWARDS
from .rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from .rewriter import Answer, Row, step_of
from .rollout import carry_out, check_answered, next_state

# A rewrite in the model's own words; no rule that knows what an operation keeps applies to it.
REWRITE = Operation("rewrite", "Replace the instruction by a harder one in your own words.")
TASK = """\
Make the instruction below harder, yet clear and possible to answer, with at most {steps} calls of your tools. Stop \
when it is good.

{text}"""


@dataclass(frozen=True)
class Settings:
    """What all chains share; see `evolution_environment`."""

    operations: tuple[Operation, ...]
    instructor: Generator
    reviewer: Generator
    steps: int
    reward_funcs: tuple[RewardFunction, ...]
    weights: tuple[float, ...]
    sampling: Sampling
    recent: deque[Transition] = field(default_factory=lambda: deque(maxlen=256), compare=False)


class EvolutionEnvironment:
    """One chain at a time. The classes of `evolution_environment` add a method for each operation."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._lock = asyncio.Lock()  # A model may call two tools at once; the second works on what the first made.
        self.reset("")

    def reset(self, instruction: str, seed_id: str = "", **columns: Any) -> None:
        """Begin a chain at an instruction; other columns of the row are left alone."""
        self._seed, self._state = Seed(seed_id, instruction), State(instruction)
        self._texts: list[str] = [instruction]
        self._made: list[Transition] = []
        self._lost: list[Transition] = []

    def get_reward(self) -> float:
        """What the reward functions pay for all steps of the chain; 0 if it has none, NaN if all its calls failed.

        Raises:
            CallsRefused: Most of the recent calls of all chains failed.
        """
        recent = self._settings.recent
        check_answered([one for one in recent if not one.failure], [one for one in recent if one.failure])
        if not self._made:
            return math.nan if self._lost else 0.0
        chain = Trajectory(self._seed, tuple(self._made), tuple(self._lost))
        rewards = call_rewards(self._settings.reward_funcs, [chain], instruction=[self._seed.instruction])
        return float(weighted_sum(rewards, self._settings.weights).sum())

    async def rewrite(self, instruction: str) -> str:
        """Replace the instruction by one in your own words.

        Args:
            instruction: The whole new instruction.

        Returns:
            Whether it was accepted, and the instruction as it is now.
        """
        return await self._step(
            lambda: step_of(Answer(REWRITE, self._texts[-1], instruction), self._settings.reviewer)
        )

    async def _carry_out(self, operation: Operation) -> str:
        made = self._settings
        models = made.instructor, made.reviewer, made.sampling
        return await self._step(
            lambda: carry_out(tuple(self._texts), operation, *models, carried=self._state.verifiers)
        )

    async def _step(self, begin: Callable[[], Any]) -> str:
        async with self._lock:
            left = self._settings.steps - len(self._made)
            if left < 1:
                return f"No call is left. The instruction is:\n{self._texts[-1]}"
            # Clients belong to the loop of `run_async`, and the trainer runs tools in a loop of its own.
            transition = await asyncio.to_thread(run_async, begin())
            self._settings.recent.append(transition)
            if transition.failure:
                self._lost.append(transition)
                return "The call failed, and nothing has changed."
            self._made.append(transition)
            self._state = next_state(self._state, transition)
            if transition.review.passed:
                self._texts.append(transition.rewrite)
            return f"{_outcome(transition)}:\n{self._texts[-1]}\nCalls left: {left - 1}."


def evolution_environment(
    instructor: Generator,
    reviewer: Generator,
    operations: Sequence[Operation] = OPERATIONS,
    steps: int = 3,
    reward_funcs: Sequence[RewardFunction] = DEFAULT_REWARDS,
    reward_weights: Sequence[float] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
) -> Callable[[], EvolutionEnvironment]:
    """An `environment_factory` for TRL's `GRPOTrainer`, on the rows of `evolution_rows`.

    Args:
        instructor: Carries out the operations that the trained model calls.
        reviewer: Judges every rewrite, behind the gate.
        steps: Calls that a chain may make.
        reward_weights: One for each reward function; all 1 for None.

    Raises:
        UserError: An operation has the name of another method, `steps` is below 1, or the weights do not fit.
    """
    check_number("steps", steps, 1, whole=True)
    taken = [one.name for one in operations if hasattr(EvolutionEnvironment, one.name)]
    if taken:
        raise UserError(f"An operation can't be called {taken[0]!r}, a method of every environment; rename it.")
    weights = tuple(check_weights(reward_weights, reward_funcs))
    settings = Settings(tuple(operations), instructor, reviewer, steps, tuple(reward_funcs), weights, sampling)
    # Trainers find tools among the methods of a class, by their names, types and docstrings.
    tools = {one.name: _tool(one) for one in operations}
    made = type(EvolutionEnvironment.__name__, (EvolutionEnvironment,), tools)
    return lambda: made(settings)


def evolution_rows(seeds: Sequence[Seed], steps: int = 3) -> list[Row]:
    """A row for every seed: `prompt` (chat messages), `instruction` and `seed_id`; `steps` as in the environment."""
    return [
        {
            "prompt": [{"role": "user", "content": TASK.format(steps=steps, text=seed.text)}],
            "instruction": seed.text,
            "seed_id": seed.id,
        }
        for seed in seeds
    ]


def _tool(operation: Operation) -> Callable[..., Any]:
    async def tool(self) -> str:  # Without a type for `self`: it would become an argument that the model has to give.
        return await self._carry_out(operation)

    tool.__name__ = operation.name
    tool.__doc__ = (
        f"{operation.sentence}\n\nReturns:\n    Whether the rewrite was accepted, and the instruction as it is now."
    )
    return tool


def _outcome(transition: Transition) -> str:
    review = transition.review
    if review.passed:
        return "Accepted. The instruction is now"
    return f"Rejected ({review.reason}). The instruction is still"
