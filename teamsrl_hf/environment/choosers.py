"""What a learned policy has to beat at equal calls: in go operations, out come choosers, two fixed and two bandits.

A bandit learns from the reward of the very step: it needs few steps and no network, and plans nothing. Beyond
`environment.Chooser` each chooser here has a `name`, its `operations` and, for what it learned, `arrays`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from ..errors import UserError, check_number
from ..models.base import Generator
from ..runs import staged
from ..text.features import hashed_vectors, history_features
from ..text.operations import Operation
from ..types import Seed, State, Trajectory
from .review import novelty_reward, validity_reward
from .rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from .rollout import Chooser, rollout, states_of, uniform

Rewards = Sequence[Sequence[float]]  # B rows of T numbers, as reward functions give them.
TIE = 1e-9  # Scores closer than this differ by rounding alone, which must not decide.


@dataclass(frozen=True)
class FixedChooser:
    """A chooser that learns nothing: one rule from a state and a number in [0, 1) to an operation's index."""

    name: str
    operations: Sequence[Operation]
    rule: Callable[[State, float], int]
    arrays: ClassVar[dict[str, np.ndarray]] = {}

    def __call__(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        return [self.rule(state, u) for state, u in zip(states, uniforms)]


def uniform_chooser(operations: Sequence[Operation]) -> FixedChooser:
    """Every operation equally likely at every step."""
    count = len(operations)
    return FixedChooser("uniform", operations, lambda state, u: int(u * count))


# What the official checkpoint does at unforced steps once its breadth has been turned into add_constraints; measured
# by simulating it (mix over all steps: breadth .333, constraints .261, concretize .188, deepen .167, complicate .036,
# reasoning .015).
PAPER_DEPTH_MIX = {
    "add_constraints": 0.261,
    "concretize": 0.188,
    "deepen": 0.167,
    "complicate_input": 0.036,
    "increase_reasoning": 0.015,
}


def paper_chooser(operations: Sequence[Operation]) -> FixedChooser:
    """The official code's behaviour: breadth at steps 1 and 4 (from 0), else a fixed mix of the in-depth operations.

    Raises:
        UserError: `operations` lacks one of the paper's six.
    """
    index = _index(operations)
    missing = {"breadth", *PAPER_DEPTH_MIX} - set(index)
    if missing:
        raise UserError(
            f"The paper's schedule needs the operation(s) {', '.join(sorted(missing))}, which are not in use."
        )
    return FixedChooser(
        "paper", operations, lambda state, u: index["breadth" if state.step % 6 in (1, 4) else _pick(u)]
    )


def _pick(u: float) -> str:
    left = u * sum(PAPER_DEPTH_MIX.values())
    for name, weight in PAPER_DEPTH_MIX.items():
        left -= weight
        if left < 0:
            return name
    return "add_constraints"


@dataclass(eq=False)
class ThompsonChooser:
    """Thompson sampling with Gaussian beliefs (arXiv 1209.3353): an operation is worth the same in every state.

    The belief after n rewards has the mean sum / (n + 1) and the deviation `deviation` / √(n + 1).

    Args:
        operations: K operations.
        deviation: How far single rewards lie from their mean; more explores longer.
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
        """What the best operation is expected to earn, which to this chooser is the same in every state."""
        best = float((self.arrays["total"] / (self.arrays["count"] + 1)).max())
        return [best] * len(states)

    def _deviates(self, u: float) -> np.ndarray:
        """K standard normal numbers that depend on `u` alone."""
        drawn = [uniform(u, operation.name) for operation in self.operations]
        return np.array([NormalDist().inv_cdf(min(max(v, 1e-12), 1 - 1e-12)) for v in drawn])

    def update(self, trajectories: Sequence[Trajectory], rewards: Rewards) -> None:
        """Learn from B chains and their rewards, B rows of T numbers."""
        index = _index(self.operations)
        for _, operation, reward in _steps(trajectories, rewards):
            self.arrays["count"][index[operation]] += 1
            self.arrays["total"][index[operation]] += reward


@dataclass(eq=False)
class LinUCBChooser:
    """Disjoint LinUCB (arXiv 1003.0146): an operation's reward is linear in a state's features, for each its own.

    Within a batch a chosen state at once counts as seen (GP-BUCB, Desautels et al., JMLR 2014): bounds alone would
    send all chains of a batch the same way.

    Args:
        operations: K operations.
        alpha: Width of the confidence bounds; more explores longer.
        text_dim: Hash buckets for the words of the text; 0 does without the text.
        operations_per_episode: Steps after which the step feature saturates.
        explore: False takes the highest expected reward; each state is then looked at for itself.
    """

    operations: Sequence[Operation]
    alpha: float = 1.0
    text_dim: int = 0
    operations_per_episode: int = 6
    explore: bool = True
    name: ClassVar[str] = "linucb"

    def __post_init__(self):
        count = len(self.operations)
        size = 3 * count + 2 + self.operations_per_episode + self.text_dim
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
        """What the best operation is expected to earn in each state, in this one step."""
        weights = (self.arrays["inverse"] @ self.arrays["moment"][..., None])[..., 0]
        return [float((weights @ self.features(state)).max()) for state in states]

    def features(self, state: State) -> np.ndarray:
        """History, step and, if `text_dim`, hashed words of a state; float64 of shape (3 K + 2 + T + text_dim,)."""
        parts = [history_features([state], _index(self.operations), self.operations_per_episode)[0]]
        if self.text_dim:
            parts.append(hashed_vectors([state.text], self.text_dim)[0])
        return np.concatenate(parts).astype(np.float64)

    def update(self, trajectories: Sequence[Trajectory], rewards: Rewards) -> None:
        """Learn from B chains and their rewards, B rows of T numbers."""
        index = _index(self.operations)
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


def _index(operations: Sequence[Operation]) -> dict[str, int]:
    return {operation.name: i for i, operation in enumerate(operations)}


def _best(scores: np.ndarray, u: float) -> int:
    """Index of the highest score; among equals `u` decides."""
    highest = np.flatnonzero(scores >= scores.max() - TIE)
    return int(highest[int(u * len(highest))])


def _steps(trajectories: Sequence[Trajectory], rewards: Rewards) -> Iterator[tuple[State, str, float]]:
    """State, operation taken and reward of every step."""
    for trajectory, row in zip(trajectories, rewards, strict=True):
        taken = [transition.operation for transition in trajectory.transitions]
        yield from zip(states_of(trajectory)[:-1], taken, row)  # Rewards of shorter chains are padded.


CHOOSERS: dict[str, Callable[..., Chooser]] = {
    "uniform": uniform_chooser,
    "paper": paper_chooser,
    "thompson": ThompsonChooser,
    "linucb": LinUCBChooser,
}


def train_chooser(
    chooser: ThompsonChooser | LinUCBChooser,
    seeds: Sequence[Seed],
    operations: Sequence[Operation],
    instructor: Generator,
    reviewer: Generator,
    rounds: int,
    reward_funcs: Sequence[RewardFunction] = (validity_reward, novelty_reward),
    reward_weights: Sequence[float] | None = None,
    episodes: int = 64,
    steps: int = 6,
    seed: int = 42,
) -> list[float]:
    """Let `chooser` learn from `rounds` batches of `episodes` chains, `steps` operations each.

    Returns for each round the mean reward of a chain, from before it was learned from. Which seeds a round takes, and
    its luck, depend on `seed` and the round's number alone.
    """
    _check_same(list(_index(chooser.operations)), operations)
    for name, number in {"rounds": rounds, "episodes": episodes, "steps": steps}.items():
        check_number(name, number, 1, whole=True)
    if not seeds:
        raise UserError("There are no seeds to learn from; give at least one.")
    weights = check_weights(reward_weights, reward_funcs)
    means = []
    for number in range(rounds):
        order = sorted(seeds, key=lambda entry: uniform("batch", seed, number, entry.id))
        batch = list(islice(cycle(order), episodes))
        chains = rollout(batch, chooser, operations, instructor, reviewer, steps, ("train", seed, number))
        rewards = weighted_sum(call_rewards(reward_funcs, chains), weights)
        chooser.update(chains, rewards.tolist())
        whole = [not chain.failed for chain in chains]  # The others lack a reward that they might have got.
        means.append(float(rewards[whole if any(whole) else ...].sum(1).mean()))
    return means


def save_chooser(chooser: FixedChooser | ThompsonChooser | LinUCBChooser, folder: str | Path) -> None:
    """Write a chooser of this module into `folder`: chooser.json, and chooser.safetensors if it learned anything."""
    from safetensors.numpy import save_file

    settings = {field.name: getattr(chooser, field.name) for field in fields(chooser)[1:]} if chooser.arrays else {}
    described = {"chooser": chooser.name, "operations": list(_index(chooser.operations)), "settings": settings}
    with staged(folder) as stage:
        if chooser.arrays:
            save_file(chooser.arrays, stage / "chooser.safetensors")
        (stage / "chooser.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_chooser(folder: str | Path, operations: Sequence[Operation]) -> Chooser:
    """The chooser that `save_chooser` wrote into `folder`.

    Raises:
        UserError: No readable chooser is there, or it was made for other operations, or for another order of them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        described = json.loads((Path(folder) / "chooser.json").read_text(encoding="utf-8"))
        _check_same(described["operations"], operations)
        chooser = CHOOSERS[described["chooser"]](operations, **described["settings"])
        if chooser.arrays:
            stored = load_file(Path(folder) / "chooser.safetensors")
            chooser.arrays = {name: stored[name].reshape(array.shape) for name, array in chooser.arrays.items()}
    except (OSError, KeyError, TypeError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder} holds no chooser that can be read ({type(error).__name__}: {error}); "
            "give a folder that save_chooser wrote."
        ) from error
    return chooser


def _check_same(own: Sequence[str], operations: Sequence[Operation]) -> None:
    given = list(_index(operations))
    if list(own) != given:
        raise UserError(
            f"The chooser chooses among {list(own)}, but the operations in use are {given}; they must be the same."
        )
