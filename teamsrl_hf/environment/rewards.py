"""Reward functions called by one contract: in go trajectories and dataset columns, out come rewards for every step.

A reward function is plain or async, `(trajectories, **columns) -> rewards`, with one entry for each of B trajectories:

- a number, paid at the end of the chain;
- a list of one number (or None) for each of its steps;
- None, where the function has nothing to say.

A chain is shorter, or even empty, where calls failed: an operation whose call failed is no step of its chain.

`columns` are the dataset's columns, `id`, `instruction` and `input` among them, as lists of length B. There are also
`trainer_state`, `log_metric(name, value)` and `log_extra(column, values)`. A function gets those that are among its
parameters.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..calls import run_async
from ..errors import UserError
from ..types import Trajectory

RewardFunction = Callable[..., Any]
RESERVED = ("trajectories", "trainer_state", "log_metric", "log_extra")


def name_of(function: RewardFunction) -> str:
    """A function's own name, or the class of a callable object."""
    return getattr(function, "__name__", type(function).__name__)


def check_weights(weights: Sequence[float] | None, functions: Sequence[RewardFunction]) -> list[float]:
    """One weight for each function; all 1 for None. UserError when the counts differ or two functions share a name."""
    names = [name_of(function) for function in functions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"Two reward functions are called {twice[0]!r}; rewards are logged by name, so rename one.")
    if weights is None:
        return [1.0] * len(functions)
    if len(weights) != len(functions):
        raise UserError(f"reward_weights has {len(weights)} numbers for {len(functions)} reward functions.")
    return list(weights)


def check_columns(names: Sequence[str]) -> None:
    """UserError when a dataset's column has a name that means something else to a reward function."""
    if taken := [name for name in RESERVED if name in names]:
        raise UserError(
            f"The dataset has a column {taken[0]!r}, a name that reward functions get for something else; rename it."
        )


def call_rewards(
    functions: Sequence[RewardFunction], trajectories: Sequence[Trajectory], /, **context: Any
) -> dict[str, np.ndarray]:
    """The rewards of each function by its name: (B, T) with T the longest chain, NaN where it says nothing.

    Async functions run concurrently with each other.
    """
    results: dict[int, Any] = {}
    waiting: dict[int, Awaitable[Any]] = {}
    for number, function in enumerate(functions):
        result = function(trajectories, **_accepted(function, context))
        (waiting if inspect.isawaitable(result) else results)[number] = result
    if waiting:
        results |= dict(zip(waiting, run_async(_gather(waiting.values()))))
    lengths = [len(trajectory.transitions) for trajectory in trajectories]
    return {name_of(function): _table(name_of(function), results[i], lengths) for i, function in enumerate(functions)}


def weighted_sum(rewards: dict[str, np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Total reward of every step, (B, T); a step that a function says nothing about gets 0 from it."""
    return sum(weight * np.nan_to_num(table) for table, weight in zip(rewards.values(), weights))


async def _gather(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*awaitables)


def _accepted(function: RewardFunction, context: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return context
    return {name: value for name, value in context.items() if name in parameters}


def _table(name: str, rewards: Any, lengths: Sequence[int]) -> np.ndarray:
    if not isinstance(rewards, Sequence | np.ndarray) or len(rewards) != len(lengths):
        given = f"{len(rewards)} rewards" if hasattr(rewards, "__len__") else f"{type(rewards).__name__}"
        raise UserError(f"Reward function {name} returned {given} for {len(lengths)} trajectories; give one for each.")
    table = np.full((len(lengths), max(lengths, default=0)), np.nan, np.float32)
    for row, reward, length in zip(table, rewards, lengths):
        row[:length] = _row(name, reward, length)
    return table


def _row(name: str, reward: Any, length: int) -> list[float]:
    if reward is None or not length:
        return [np.nan] * length
    if np.ndim(reward) == 0:
        return [0.0] * (length - 1) + [float(reward)]
    if len(reward) != length:
        raise UserError(f"Reward function {name} returned {len(reward)} numbers for a trajectory of {length} steps.")
    return [np.nan if step is None else float(step) for step in reward]
