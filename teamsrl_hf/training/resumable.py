"""Trainers that can be stopped at any moment: in goes a Trainer of transformers or TRL, out comes one that, killed and
run again, ends with the weights of an unbroken run."""

import json
import os
import shutil
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..runs import STAGE, move_into
from .checkpoints import STATE_FILE, check_checkpoint, discard, newest_whole, rotate


class Resumable:
    """For a Trainer, before it among the bases.

    Checkpoints and models are written whole or not at all, and a checkpoint is checked before training goes on from
    it. What a Trainer forgets at a stop is kept: which rows come next, what is not logged yet, and whether the
    training was done.
    """

    _staging = False
    _unlogged_in: str | None = None  # The checkpoint whose part of that is still to be loaded.
    # What the next log tells of; a class that has no such attribute does without.
    _unlogged = ("_tr_loss", "_globalstep_last_logged", "_metrics", "_losses", "_total_train_tokens")

    def checkpoint_to_resume(self) -> str | None:
        """The checkpoint that the arguments name, else the newest whole one in the output folder, else None."""
        if self.args.resume_from_checkpoint:
            return self.args.resume_from_checkpoint
        say = None if self.is_world_process_zero() else lambda line: None
        found = newest_whole(self.args.output_dir, *self._needed(), say=say)
        return str(found) if found else None

    def checkpoint_files(self) -> list[str]:
        """Names of the files that a checkpoint has beyond those of every Trainer."""
        return []

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **options):
        """As the Trainer's; True takes the newest whole checkpoint, if there is one.

        Raises:
            UserError: The checkpoint given is damaged, or was saved by another number of processes.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.checkpoint_to_resume()
        if resume_from_checkpoint:
            check_checkpoint(resume_from_checkpoint, *self._needed())
            history = json.loads((Path(resume_from_checkpoint) / STATE_FILE).read_bytes())["log_history"]
            # The start was another one, and a second evaluation there would cost early stopping its patience.
            self.args.eval_on_start &= not any(name.startswith("eval_") for entry in history for name in entry)
        self._unlogged_in = resume_from_checkpoint
        self._empty_stage(Path(self.args.output_dir))
        return super().train(resume_from_checkpoint, *args, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        for config in getattr(self.model, "peft_config", {}).values():
            if isinstance(config.target_modules, set):
                config.target_modules = sorted(config.target_modules)  # Else their order in the file is by chance.
        if self._staging:
            return super().save_model(output_dir, _internal_call)
        if self.is_fsdp_enabled:  # In shards the Trainer would save no model at all.
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        folder = Path(output_dir or self.args.output_dir)
        self._empty_stage(folder)
        super().save_model(str(folder / STAGE), _internal_call=True)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            move_into(folder)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save")

    def _needed(self) -> tuple[int, list[str], bool]:
        return self.args.world_size, self.checkpoint_files(), self.args.load_best_model_at_end

    def _empty_stage(self, folder: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(folder / STAGE, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGE) if self._staging else folder

    def _save_checkpoint(self, model, trial) -> None:
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
            self.state.save_to_json(folder / STAGE / checkpoint.name / STATE_FILE)
            if checkpoint.exists():
                discard(checkpoint)
            (folder / STAGE / checkpoint.name).replace(checkpoint)
            rotate(folder, checkpoint, self.args.save_total_limit, self.state.best_model_checkpoint)
            (folder / STAGE).rmdir()
        self.accelerator.wait_for_everyone()

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        return OrderByEpoch(sampler, self.args.seed) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # Like that of the random numbers, this state is each process's own.
        values = {name: _plain(getattr(self, name)) for name in self._unlogged if hasattr(self, name)}
        torch.save(values, Path(output_dir) / f"unlogged-{self.args.process_index}.pt")

    def _load_unlogged(self) -> None:
        """Once, after the Trainer has set all of it to zero."""
        checkpoint, self._unlogged_in = self._unlogged_in, None
        file = Path(checkpoint or "") / f"unlogged-{self.args.process_index}.pt"
        if checkpoint is None or not file.is_file():  # Another Trainer's checkpoint has none.
            return
        for name, value in torch.load(file, map_location=self.args.device.type, weights_only=True).items():
            _refill(vars(self), name, value)
        self._total_loss_scalar -= self._tr_loss.item()  # The mean over this train() counts its own steps alone.

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Of the hooks that load a checkpoint, this is the one that is called with DeepSpeed, too.
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._find_best(Path(checkpoint).parent)

    def _run_epoch(self, *, epoch: int, train_dataloader, resume_from_checkpoint, **options) -> None:
        self._load_unlogged()
        if resume_from_checkpoint and self._was_done():
            self.control.should_training_stop = True  # Else it would be asked only after a further step.
            return
        # Of an epoch that is begun in its middle and cut into shards, transformers does not reach the sampler.
        train_dataloader.set_epoch(epoch)
        given = {"train_dataloader": train_dataloader, "resume_from_checkpoint": resume_from_checkpoint}
        super()._run_epoch(epoch=epoch, **given, **options)

    def _finalize_training(self, *args, **options):
        self._load_unlogged()  # Where the last epoch was over, none is run.
        return super()._finalize_training(*args, **options)

    def _was_done(self) -> bool:
        return self.state.global_step >= self.state.max_steps or any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )

    def _find_best(self, folder: Path, coming: Path | None = None) -> None:
        """Let the state name its best checkpoint by where it lies now, or will lie."""
        best = folder / f"checkpoint-{self.state.best_global_step}"
        if best == coming or best.is_dir():
            self.state.best_model_checkpoint = str(best)


def _plain(value):
    """A value without its subclasses of dict, as torch loads no others."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def _refill(target: dict, name: str, value) -> None:
    """`target[name] = value`; a dict that is there stays the object that it is."""
    if isinstance(value, dict):
        for key, part in value.items():
            _refill(target[name], key, part)
    else:
        target[name] = value


class OrderByEpoch:
    """A sampler whose order depends on seed and epoch alone, so that a resumed run goes on with the same rows."""

    def __init__(self, sampler: LengthGroupedSampler, seed: int):
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        self.sampler.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)
