"""Rollouts as the Trainer consumes them: in go seeds and transitions, out come batches of seeds and micro-batches."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset, Sampler

from .config import InstructionGenPPOConfig

Tensors = dict[str, torch.Tensor]


class RolloutSampler(Sampler[int]):
    """Yields the seeds of each global rollout `repeat` times in a row, so that every pass over it sees the same batch.

    Two processes, 2 episodes each, repeat = 3:

        passed on to      rank 0   rank 1
        step 0            7 2      5 0      <- rolled out here, kept, then reused
        step 1            7 2      5 0
        step 2            7 2      5 0
        step 3            1 4      6 3      <- the next rollout

    The order depends on `seed` and epoch alone, so that a resumed run continues with the same seeds. A set smaller
    than one rollout is repeated to fill it. Seeds that fill no whole rollout at the end of an epoch are dropped.
    """

    def __init__(self, size: int, batch_size: int, repeat: int, seed: int):
        self.size, self.batch_size, self.repeat, self.seed, self.epoch = size, batch_size, repeat, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        copies = math.ceil(self.batch_size / self.size)
        order = torch.cat([torch.randperm(self.size, generator=generator) for _ in range(copies)]).tolist()
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            for _ in range(self.repeat):
                yield from order[start : start + self.batch_size]

    def __len__(self) -> int:
        return max(self.size // self.batch_size, 1) * self.batch_size * self.repeat


class RowNumbers(Dataset[int]):
    """The numbers 0 … `size` − 1: rows are read once for each rollout, not for each of its micro-batches."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        return row


def collate_rows(rows: list[int]) -> Tensors:
    """Row numbers as the one tensor `rows` (B,)."""
    return {"rows": torch.tensor(rows)}


class RolloutBuffer:
    """The current rollout of one process, and which of its micro-batches comes next.

    Attributes:
        passes, per_pass: Passes over each rollout, and micro-batches in each of them.
        seed: Decides the order of transitions, together with the numbers of rollout and pass.
        tensors: The rollout's N transitions by name, each (N, …); empty before the first rollout.
        taken: Micro-batches taken or skipped since the first step of the training.
        stopped: Number of the rollout whose remaining micro-batches are skipped; -1 for none.
    """

    def __init__(self, args: InstructionGenPPOConfig):
        self.passes, self.seed = args.num_ppo_epochs, args.seed
        self.per_pass = args.num_mini_batches * args.gradient_accumulation_steps
        self.tensors: Tensors = {}
        self.taken, self.stopped = 0, -1
        self._shuffled: dict[str, tuple[torch.Tensor, ...]] = {}
        self._shuffled_by: int | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Number of the next micro-batch's rollout, and its position in that rollout."""
        return divmod(self.taken, self.passes * self.per_pass)

    def take(self) -> Tensors:
        """The next micro-batch. Each pass is shuffled differently, but the same way in every run."""
        number, position = self.position
        ppo_epoch, part = divmod(position, self.per_pass)
        key = (self.seed * 1_000_003 + number) * self.passes + ppo_epoch
        if key != self._shuffled_by:
            generator = torch.Generator().manual_seed(key % 2**63)
            order = torch.randperm(len(self.tensors["actions"]), generator=generator)
            self._shuffled = {name: tensor[order].tensor_split(self.per_pass) for name, tensor in self.tensors.items()}
            self._shuffled_by = key
        self.taken += 1
        return {name: parts[part] for name, parts in self._shuffled.items()}

    def skip(self) -> bool:
        """Skip the next micro-batch if its rollout was stopped; returns whether it did."""
        number, position = self.position
        skipped = position > 0 and self.stopped == number
        self.taken += skipped
        return skipped

    def stop(self) -> None:
        """Skip the remaining micro-batches of the rollout that the last one came from."""
        self.stopped = (self.taken - 1) // (self.passes * self.per_pass)

    def save(self, folder: str | Path, rank: int) -> None:
        """Write the rollout of this process into a checkpoint's folder."""
        save_file({**self.tensors, "stopped": torch.tensor(self.stopped)}, Path(folder) / file_of(rank))

    def load(self, folder: str | Path, rank: int, taken: int) -> None:
        """Continue after `taken` micro-batches, in the middle of a rollout with the one that `save` wrote."""
        self.taken = taken
        if self.position[1]:  # The policy that walked this rollout is gone, so it can't be repeated.
            self.tensors = load_file(Path(folder) / file_of(rank))
            self.stopped = int(self.tensors.pop("stopped").item())


def file_of(rank: int) -> str:
    """Name of the file in a checkpoint that holds the rollout of process `rank`."""
    return f"rollout-{rank}.safetensors"
