"""Trainers that can be killed: in goes a Trainer of transformers or TRL, out comes one that resumes exactly.

Killed at any moment and run again, it ends with the weights of an unbroken run.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..runs import STAGE, move_into
from .checkpoints import STATE_FILE, check_checkpoint, discard, newest_whole, rotate

logger = logging.getLogger(__name__)


class Resumable(Trainer):
    """A base class for a trainer that resumes exactly; of several base classes it comes before other Trainers.

    Checkpoints and models are written whole or not at all, and a checkpoint is checked before training resumes from
    it. It also keeps what a Trainer forgets at a stop: which rows come next, what is not logged yet, and whether the
    training was done.
    """

    _staging = False
    _unlogged_in: str | None = None  # The checkpoint whose unlogged values are still to be loaded.
    # Attributes, where a class has them, with values for the next log.
    _unlogged = ("_tr_loss", "_globalstep_last_logged", "_metrics", "_losses", "_total_train_tokens")

    def checkpoint_to_resume(self) -> str | None:
        """The checkpoint that the arguments name, else the newest whole one in the output folder, else None."""
        if self.args.resume_from_checkpoint:
            return self.args.resume_from_checkpoint
        found = newest_whole(self._folder, *self._needed(), warn=self.is_world_process_zero())
        return str(found) if found else None

    def checkpoint_files(self) -> list[str]:
        """Names of the files that a checkpoint has beyond those of every Trainer."""
        return []

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        """Train as the Trainer does; True resumes from the newest whole checkpoint, if there is one.

        Raises:
            UserError: The checkpoint given is damaged, or was saved by another number of processes.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.checkpoint_to_resume()
        checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
        if checkpoint is not None:
            check_checkpoint(checkpoint, *self._needed())
            history = json.loads((Path(checkpoint) / STATE_FILE).read_bytes())["log_history"]
            # Training did not start here, and another evaluation would cost early stopping some of its patience.
            self.args.eval_on_start &= not any(name.startswith("eval_") for entry in history for name in entry)
            if self.is_world_process_zero():
                logger.info("Training resumes from %s.", checkpoint)
        self._unlogged_in = checkpoint
        self._empty_stage(self._folder)
        return super().train(checkpoint, *args, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        for config in getattr(self.model, "peft_config", {}).values():
            if isinstance(config.target_modules, set):
                config.target_modules = sorted(config.target_modules)  # Else their order in the file is random.
        if self._staging:
            return super().save_model(output_dir, _internal_call)
        if self.is_fsdp_enabled:  # In shards the Trainer would save no model at all.
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        folder = self._folder if output_dir is None else Path(output_dir)
        self._empty_stage(folder)
        super().save_model(str(folder / STAGE), _internal_call=True)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            move_into(folder)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save")

    @property
    def _folder(self) -> Path:
        assert self.args.output_dir is not None  # `TrainingArguments` fills it in.
        return Path(self.args.output_dir)

    def _needed(self) -> tuple[int, list[str], bool]:
        return self.args.world_size, self.checkpoint_files(), self.args.load_best_model_at_end

    def _empty_stage(self, folder: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(folder / STAGE, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGE) if self._staging else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial))
        self._empty_stage(folder)
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        self._find_best(folder, checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(folder / STAGE / checkpoint.name / STATE_FILE))
            if checkpoint.exists():
                discard(checkpoint)
            (folder / STAGE / checkpoint.name).replace(checkpoint)
            rotate(folder, checkpoint, self.args.save_total_limit, self.state.best_model_checkpoint)
            (folder / STAGE).rmdir()
        self.accelerator.wait_for_everyone()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        return OrderByEpoch(sampler, self.args.seed) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # Each process has its own, as it has its own random numbers.
        values = {name: _plain(getattr(self, name)) for name in self._unlogged if hasattr(self, name)}
        torch.save(values, Path(output_dir) / f"unlogged-{self.args.process_index}.pt")

    def _load_unlogged(self) -> None:
        """Load the unlogged values, once, after the Trainer has set them to zero."""
        checkpoint, self._unlogged_in = self._unlogged_in, None
        if checkpoint is None:
            return
        file = Path(checkpoint) / f"unlogged-{self.args.process_index}.pt"
        if not file.is_file():  # The checkpoint is one of a plain Trainer.
            return
        for name, value in torch.load(file, map_location=self.args.device.type, weights_only=True).items():
            _refill(vars(self), name, value)
        self._total_loss_scalar -= self._tr_loss.item()  # The mean over this train() counts its own steps alone.

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # The only hook for loading a checkpoint that is called with DeepSpeed, too.
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._find_best(Path(checkpoint).parent)

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        self._load_unlogged()
        if options["resume_from_checkpoint"] and self._was_done():
            self.control.should_training_stop = True  # Else the Trainer would take one more step before it checks.
            return
        # When an epoch resumes in its middle and is sharded, transformers does not set the sampler's epoch.
        options["train_dataloader"].set_epoch(options["epoch"])
        super()._run_epoch(*args, **options)

    def _finalize_training(self, *args: Any, **options: Any) -> Any:
        self._load_unlogged()  # If the last epoch was complete, `_run_epoch` is never called.
        return super()._finalize_training(*args, **options)

    def _was_done(self) -> bool:
        return self.state.global_step >= self.state.max_steps or any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )

    def _find_best(self, folder: Path, coming: Path | None = None) -> None:
        """Set the path of the best checkpoint in the state to where it is now, or will be."""
        best = folder / f"checkpoint-{self.state.best_global_step}"
        if best == coming or best.is_dir():
            self.state.best_model_checkpoint = str(best)


def _plain(value: Any) -> Any:
    """A value whose dicts are plain ones: torch refuses to load subclasses."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def _refill(target: dict[str, Any], name: str, value: Any) -> None:
    """`target[name] = value`; an existing dict is filled, not replaced."""
    if isinstance(value, dict):
        for key, part in value.items():
            _refill(target[name], key, part)
    else:
        target[name] = value


class OrderByEpoch:
    """A sampler whose order depends on seed and epoch alone, so that a resumed run continues with the same rows."""

    def __init__(self, sampler: LengthGroupedSampler, seed: int):
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
