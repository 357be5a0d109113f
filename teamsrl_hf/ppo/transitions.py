"""Transitions of a rollout: in go B chains of at most T steps, out come the N transitions that the loss takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..environment.rollout import states_of
from ..types import State, Trajectory

# From N states to the policy's inputs by name, each (N, …), logits (N, K) and values (N,).
Reader = Callable[[Sequence[State]], tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Reading:
    """What the policy sees and says before each step.

    Attributes:
        lengths: (B,), steps of each chain.
        taken: (B, T), whether the chain has this step; the rest is padding.
        inputs: Inputs of the policy by name, (B, T, …).
        logits: (B, T, K).
        value: (B, T), 0 in the padding.
        final_value: (B,), the value after the last step, 0 where that is a true end; None where all ends are.
    """

    lengths: torch.Tensor
    taken: torch.Tensor
    inputs: dict[str, torch.Tensor]
    logits: torch.Tensor
    value: torch.Tensor
    final_value: torch.Tensor | None


def read_chains(chains: Sequence[Trajectory], steps: int, read: Reader, cut: Sequence[bool] | None) -> Reading:
    """Let the policy read the states of all chains.

    The states are read step by step, as when acting, which bounds memory. Short chains repeat their last state, so
    that all processes make the same number of forward passes: sharded weights (ZeRO-3, FSDP) need that.

    Args:
        steps: T, the steps of the longest chain of all processes.
        cut: Which chains were cut off before their end; None where no process has such a chain.
    """
    lengths = torch.tensor([len(chain.transitions) for chain in chains])
    taken = torch.arange(steps) < lengths[:, None]
    states = [states_of(chain) for chain in chains]
    columns = [read([own[min(t, len(own) - 1)] for own in states]) for t in range(steps + (cut is not None))]
    value = torch.stack([column[2] for column in columns], 1)
    final = None if cut is None else torch.where(torch.tensor(cut), value.gather(1, lengths[:, None])[:, 0], 0.0)
    columns = columns[:steps]
    inputs = {name: torch.stack([column[0][name] for column in columns], 1) for name in columns[0][0]}
    logits = torch.stack([column[1] for column in columns], 1)
    return Reading(lengths, taken, inputs, logits, value[:, :steps] * taken, final)


def transitions(
    chains: Sequence[Trajectory], reading: Reading, index: Mapping[str, int]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs of the policy, and what it did with them (`actions`, `old_logprobs`, `old_value`), each (N, …).

    Args:
        index: Index of each operation by name.
    """
    taken = reading.taken
    actions = torch.tensor([index[step.operation] for chain in chains for step in chain.transitions])
    logprobs = torch.log_softmax(reading.logits[taken], -1).gather(-1, actions[:, None])[:, 0]
    inputs = {name: tensor[taken] for name, tensor in reading.inputs.items()}
    return inputs, {"actions": actions, "old_logprobs": logprobs, "old_value": reading.value[taken]}
