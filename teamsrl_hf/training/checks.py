"""Arguments of transformers' Trainer: in go values, out comes an error for what it would refuse after loading."""

from pathlib import Path
from typing import Any

from ..errors import UserError, check_number
from ..loading import library

# Values out of these bounds make torch fail late, or train on nonsense.
_BOUNDS: dict[str, dict[str, Any]] = {
    **{name: {"least": 0} for name in ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm")},
    **{name: {"least": 0} for name in ("dataloader_num_workers", "neftune_noise_alpha")},
    **{name: {"least": 1} for name in ("per_device_train_batch_size", "per_device_eval_batch_size")},
    **{name: {"least": 1} for name in ("gradient_accumulation_steps", "save_total_limit")},
    **{name: {"above": 0} for name in ("logging_steps", "save_steps", "eval_steps", "num_train_epochs")},
    **{name: {"least": 0, "below": 1} for name in ("adam_beta1", "adam_beta2", "label_smoothing_factor")},
    **{name: {"least": 0, "most": 2**32 - 1} for name in ("seed", "data_seed")},
    "max_steps": {"least": -1},
}
# Optimizers that can't be looked up before there is a model.
_NEED_A_MODEL = ("galore", "apollo", "lomo")


def check_lora(args: Any) -> None:
    """Check TRL's `ModelConfig`; UserError where PEFT would refuse an adapter with its numbers or of its kind."""
    if not args.use_peft:
        return
    from trl import get_peft_config

    check_number("lora_r", args.lora_r, 1)
    check_number("lora_alpha", args.lora_alpha, above=0)
    check_number("lora_dropout", args.lora_dropout, 0, below=1)
    with library("The adapter can't be configured"):
        get_peft_config(args)


def check_training(args: Any) -> None:
    """Check `TrainingArguments`.

    Raises:
        UserError: A number is out of range, or an optimizer, a schedule, a tracker or a kernel can't be used here.
    """
    import torch
    from transformers import Trainer, get_scheduler
    from transformers.integrations import get_available_reporting_integrations
    from transformers.utils import is_liger_kernel_available

    for name, bounds in _BOUNDS.items():
        if getattr(args, name) is not None:
            check_number(name, getattr(args, name), **bounds)
    checkpoint = args.resume_from_checkpoint
    if checkpoint and checkpoint.lower() != "true" and not Path(checkpoint).is_dir():
        raise UserError(
            f"resume_from_checkpoint is {checkpoint!r}, which is no folder; leave it out to resume from the newest."
        )
    if missing := sorted({*args.report_to} - {*get_available_reporting_integrations(), "flyte"}):
        raise UserError(f"report_to names {missing[0]!r}, no tracker that is installed here; install it, or use none.")
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise UserError("use_liger_kernel needs the package liger-kernel; install it, or leave the line out.")
    if not any(name in args.optim for name in _NEED_A_MODEL):
        with library("The optimizer can't be used"):
            Trainer.get_optimizer_cls_and_kwargs(args)
    with library("The schedule of the learning rate can't be used"):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        get_scheduler(args.lr_scheduler_type, optimizer, 1, 10, args.lr_scheduler_kwargs)
