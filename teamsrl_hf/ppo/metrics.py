"""What is logged about rollouts: in go trajectories and rewards, out come numbers by name, described in `trainer`."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..text.operations import Operation
from ..types import Trajectory

LOGGED_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_ratio", "kl")


def whole(*rollouts: Sequence[Trajectory]) -> torch.Tensor:
    """Places (B,) whose chains have no failed call in any of the rollouts; all places where there is no such place."""
    places = torch.tensor([not any(chain.failed for chain in chains) for chains in zip(*rollouts, strict=True)])
    return places if places.any() else torch.ones_like(places)


def rollout_metrics(
    trajectories: Sequence[Trajectory], rewards: torch.Tensor, operations: Sequence[Operation]
) -> dict[str, float]:
    """Metrics of a rollout of B chains with rewards (B, T)."""
    episodes = rewards[whole(trajectories)].sum(1)
    taken = [transition.operation for trajectory in trajectories for transition in trajectory.transitions]
    failed = sum(len(trajectory.failed) for trajectory in trajectories)
    return {
        "reward": episodes.mean().item(),
        "reward_std": episodes.std(correction=0).item(),
        "accept_rate": accept_rate(trajectories),
        "failed_calls": failed / (failed + len(taken)),
        **{f"operations/{one.name}": taken.count(one.name) / len(taken) for one in operations},
    }


def reward_metrics(rewards: Mapping[str, np.ndarray], trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean and deviation over chains of each reward function's sum; `rewards` (B, T), NaN where it says nothing."""
    metrics: dict[str, float] = {}
    places = whole(trajectories).numpy()
    for name, table in ((name, table[places]) for name, table in rewards.items()):
        sums = np.nansum(table, axis=1)[~np.isnan(table).all(axis=1)]
        if len(sums):
            metrics |= {f"rewards/{name}/mean": float(sums.mean()), f"rewards/{name}/std": float(sums.std())}
    return metrics


def evaluation_metrics(
    chains: Sequence[Trajectory], learned: torch.Tensor, random_chains: Sequence[Trajectory], random: torch.Tensor
) -> dict[str, float]:
    """Policy against the uniform chooser: chains from the same B seeds, and the reward (B,) of each chain."""
    places = whole(chains, random_chains)
    learned, random = learned[places], random[places]
    lift = learned - random
    return {
        "reward": learned.mean().item(),
        "random_reward": random.mean().item(),
        "lift": lift.mean().item(),
        "lift_error": 1.96 * lift.std(correction=0).item() / math.sqrt(len(lift)),
        "accept_rate": accept_rate(chains),
        "random_accept_rate": accept_rate(random_chains),
    }


def accept_rate(trajectories: Sequence[Trajectory]) -> float:
    """Share of rewrites that passed review."""
    passed = [transition.review.passed for trajectory in trajectories for transition in trajectory.transitions]
    return sum(passed) / len(passed)


def rejections(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Counts of the rewrites that did not pass review, by reason."""
    reasons = (transition.review.reason for chain in trajectories for transition in chain.transitions)
    return dict(sorted(Counter(str(reason) for reason in reasons if reason is not None).items()))


def mix_by_step(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Share of each operation at each step, under `operations/<step>/<name>`."""
    counts: dict[tuple[int, str], int] = defaultdict(int)
    totals: dict[int, int] = defaultdict(int)
    for trajectory in trajectories:
        for step, transition in enumerate(trajectory.transitions):
            counts[step, transition.operation] += 1
            totals[step] += 1
    return {f"operations/{step}/{name}": count / totals[step] for (step, name), count in sorted(counts.items())}
