"""Bandits, which learn to choose operations from the reward of each step: in go chains and rewards, out come choosers.

A bandit needs few steps and no network, and plans nothing. Beyond `rollout.Chooser` each one has a `name`, its
`operations` and, for what it learned, `arrays`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from ..errors import UserError, check_number
from ..models.base import Generator, Sampling
from ..text.features import FORM, form_features, hashed_vectors, history_features
from ..text.operations import Operation
from ..types import Seed, State, Trajectory
from .review import DEFAULT_REWARDS
from .rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from .rollout import rollout, states_of, uniform

Rewards = Sequence[Sequence[float]]  # B rows of T numbers, as reward functions give them.
TIE = 1e-9  # Scores closer than this differ only by rounding, which must not decide.


@dataclass(eq=False)
class ThompsonChooser:
    """Thompson sampling with Gaussian beliefs (arXiv 1209.3353): it expects the same of an operation in every state.

    The belief after n rewards has the mean sum / (n + 1) and the deviation `deviation` / √(n + 1).

    Args:
        operations: K operations.
        deviation: Assumed standard deviation of single rewards; a larger one explores longer.
        explore: False takes the highest mean, which is always the same operation.
    """

    operations: Sequence[Operation]
    deviation: float = 1.0
    explore: bool = True
    name: ClassVar[str] = "thompson"

    def __post_init__(self):
        self.arrays = {"count": np.zeros(len(self.operations)), "total": np.zeros(len(self.operations))}

    def __call__(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        shrunk = self.arrays["count"] + 1
        means, deviations = self.arrays["total"] / shrunk, self.deviation / np.sqrt(shrunk)
        return [_best(means + deviations * self._deviates(u) if self.explore else means, u) for u in uniforms]

    def value(self, states: Sequence[State]) -> list[float]:
        """Expected reward of the best operation, (B,): the same for every state."""
        best = float((self.arrays["total"] / (self.arrays["count"] + 1)).max())
        return [best] * len(states)

    def _deviates(self, u: float) -> np.ndarray:
        """K standard normal numbers that depend on `u` alone."""
        drawn = [uniform(u, operation.name) for operation in self.operations]
        return np.array([NormalDist().inv_cdf(min(max(v, 1e-12), 1 - 1e-12)) for v in drawn])

    def update(self, trajectories: Sequence[Trajectory], rewards: Rewards) -> None:
        """Learn from B chains and their rewards, B rows of T numbers."""
        index = index_of(self.operations)
        for _, operation, reward in _steps(trajectories, rewards):
            self.arrays["count"][index[operation]] += 1
            self.arrays["total"][index[operation]] += reward


@dataclass(eq=False)
class LinUCBChooser:
    """Disjoint LinUCB (arXiv 1003.0146): an operation's reward is linear in a state's features, for each its own.

    Within a batch a chosen state counts as seen at once (GP-BUCB, Desautels et al., JMLR 2014): with bounds alone all
    chains of a batch would choose alike.

    Args:
        operations: K operations.
        alpha: Width of the confidence bounds; more explores longer.
        text_dim: Hash buckets for the words of the text; 0 ignores the words.
        form: Whether it sees the form of the text, see `text.features.FORM`.
        operations_per_episode: Steps after which the step feature saturates.
        explore: False takes the highest expected reward; each choice then depends on its own state only.
    """

    operations: Sequence[Operation]
    alpha: float = 1.0
    text_dim: int = 0
    form: bool = False
    operations_per_episode: int = 6
    explore: bool = True
    name: ClassVar[str] = "linucb"

    def __post_init__(self):
        count = len(self.operations)
        size = 3 * count + 2 + self.operations_per_episode + self.text_dim + self.form * len(FORM)
        # The inverses are kept, not the sums they invert: each observation updates them by one outer product.
        self.arrays = {"inverse": np.stack([np.eye(size)] * count), "moment": np.zeros((count, size))}

    def __call__(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        inverse = self.arrays["inverse"].copy() if self.explore else self.arrays["inverse"]
        weights = (inverse @ self.arrays["moment"][..., None])[..., 0]
        actions = []
        for state, u in zip(states, uniforms):
            x = self.features(state)
            if self.explore:
                actions.append(_best(upper_bounds(weights, inverse, x, self.alpha), u))
                observe(inverse[actions[-1]], x)
            else:
                actions.append(_best(weights @ x, u))
        return actions

    def value(self, states: Sequence[State]) -> list[float]:
        """Expected reward of the best operation in each state, (B,), for one step."""
        weights = (self.arrays["inverse"] @ self.arrays["moment"][..., None])[..., 0]
        return [float((weights @ self.features(state)).max()) for state in states]

    def features(self, state: State) -> np.ndarray:
        """History, step and, if asked for, hashed words and form of a state; float64 of shape (D,)."""
        parts = [history_features([state], index_of(self.operations), self.operations_per_episode)[0]]
        if self.text_dim:
            parts.append(hashed_vectors([state.text], self.text_dim)[0])
        if self.form:
            parts.append(form_features([state.text])[0])
        return np.concatenate(parts).astype(np.float64)

    def update(self, trajectories: Sequence[Trajectory], rewards: Rewards) -> None:
        """Learn from B chains and their rewards, B rows of T numbers."""
        index = index_of(self.operations)
        for state, operation, reward in _steps(trajectories, rewards):
            x = self.features(state)
            observe(self.arrays["inverse"][index[operation]], x)
            self.arrays["moment"][index[operation]] += reward * x


def upper_bounds(weights: np.ndarray, inverse: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Expected reward of each operation in state `x` (D,) plus `alpha` times its uncertainty, (K,)."""
    return weights @ x + alpha * np.sqrt(np.maximum(inverse @ x @ x, 0.0))


def observe(inverse: np.ndarray, x: np.ndarray) -> None:
    """Turn the inverse (D, D) of A into that of A + x xᵀ, in place (Sherman and Morrison)."""
    seen = inverse @ x
    inverse -= np.outer(seen, seen) / (1.0 + x @ seen)


def _best(scores: np.ndarray, u: float) -> int:
    """Index of the highest score; among equals `u` decides."""
    highest = np.flatnonzero(scores >= scores.max() - TIE)
    return int(highest[int(u * len(highest))])


def _steps(trajectories: Sequence[Trajectory], rewards: Rewards) -> Iterator[tuple[State, str, float]]:
    """State, operation taken and reward of every step."""
    for trajectory, row in zip(trajectories, rewards, strict=True):
        taken = [transition.operation for transition in trajectory.transitions]
        yield from zip(states_of(trajectory)[:-1], taken, row)  # Rewards of shorter chains are padded.


Bandit = ThompsonChooser | LinUCBChooser


def train_chooser(
    chooser: Bandit,
    seeds: Sequence[Seed],
    operations: Sequence[Operation],
    instructor: Generator,
    reviewer: Generator,
    rounds: int,
    reward_funcs: Sequence[RewardFunction] = DEFAULT_REWARDS,
    reward_weights: Sequence[float] | None = None,
    episodes: int = 64,
    steps: int = 6,
    seed: int = 42,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
) -> list[float]:
    """Let `chooser` learn from `rounds` batches of `episodes` chains, `steps` operations each.

    The seeds and random numbers of a round depend on `seed` and the round's number alone. Operations whose call failed
    are no steps, so the chooser learns nothing from them. `sampling` is the instructor's.

    Returns:
        The mean reward of a chain in each round, before learning from it.

    Raises:
        UserError: The chooser has other operations, there are no seeds, or a number is out of range.
        CallsRefused: Most calls to a model failed.
    """
    check_same(list(index_of(chooser.operations)), operations)
    for name, number in {"rounds": rounds, "episodes": episodes, "steps": steps}.items():
        check_number(name, number, 1, whole=True)
    if not seeds:
        raise UserError("There are no seeds to learn from; give at least one.")
    weights = check_weights(reward_weights, reward_funcs)
    means = []
    for number in range(rounds):
        order = sorted(seeds, key=lambda entry: uniform("batch", seed, number, entry.id))
        batch = list(islice(cycle(order), episodes))
        chains = rollout(batch, chooser, operations, instructor, reviewer, steps, ("train", seed, number), sampling)
        rewards = weighted_sum(call_rewards(reward_funcs, chains), weights)
        chooser.update(chains, rewards.tolist())
        whole = [not chain.failed for chain in chains]  # The other chains lack rewards they might have got.
        means.append(float(rewards[whole if any(whole) else ...].sum(1).mean()))
    return means


def index_of(operations: Sequence[Operation]) -> dict[str, int]:
    """Index of each operation by name."""
    return {operation.name: i for i, operation in enumerate(operations)}


def check_same(own: Sequence[str], operations: Sequence[Operation]) -> None:
    """UserError that shows both lists unless a chooser's `own` operations are those in use, in this order."""
    given = list(index_of(operations))
    if list(own) != given:
        raise UserError(
            f"The chooser chooses among {list(own)}, but the operations in use are {given}; they must be the same."
        )
