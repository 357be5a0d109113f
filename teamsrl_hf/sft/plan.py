"""The plan of a fine-tuning: in go tokenized rows and the trainer's arguments, out comes one line to print first."""

from collections.abc import Sequence
from typing import Any

from .estimate import Estimate, Launch, count_steps, estimate_line, estimate_memory, model_shape


def extent(ids: Sequence[Sequence[int]], sft_args: Any) -> tuple[int, int]:
    """The highest token id, and the length of the longest row that the model will see."""
    longest = max(map(len, ids))
    if sft_args.max_length is not None:
        longest = sft_args.max_length if sft_args.packing else min(longest, sft_args.max_length)
    return max(map(max, ids)), longest


def foresee(rows: Any, config: Any, model_args: Any, sft_args: Any, launch: Launch) -> str:
    """One line: how many parameters are trained, in how many steps, and whether they fit into memory."""
    limit, batch = sft_args.max_length, sft_args.per_device_train_batch_size
    lengths = [len(ids) if limit is None else min(len(ids), limit) for ids in rows["input_ids"]]
    estimate = estimate_run(config, limit if sft_args.packing else max(lengths), model_args, sft_args, launch)
    steps = count_steps(
        lengths,
        batch=batch * sft_args.world_size,
        accumulation=sft_args.gradient_accumulation_steps,
        epochs=sft_args.num_train_epochs,
        max_steps=sft_args.max_steps,
        pack_to=limit if sft_args.packing else None,
    )
    available, device = memory_per_process(sft_args, launch), sft_args.device.type.upper()
    return estimate_line(estimate, available, device, steps, sft_args.world_size)


def estimate_run(config: Any, length: int, model_args: Any, sft_args: Any, launch: Launch) -> Estimate:
    """Bytes on each device if a forward pass takes rows of `length` tokens."""
    from trl import get_peft_config

    return estimate_memory(
        model_shape(config, get_peft_config(model_args)),
        tokens=sft_args.per_device_train_batch_size * length,
        dtype=str(config.dtype or "float32").split(".")[-1] if model_args.dtype == "auto" else model_args.dtype,
        mixed=bool(sft_args.bf16 or sft_args.fp16),
        bits=4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else 0,
        double_quantization=model_args.use_bnb_nested_quant,
        optimizer=str(sft_args.optim.value),
        checkpointing=bool(sft_args.gradient_checkpointing),
        launch=launch,
    )


def memory_per_process(sft_args: Any, launch: Launch) -> float:
    """Bytes of the device, or the share of this machine's memory that each process has."""
    import psutil
    import torch

    if sft_args.device.type == "cuda":
        return torch.cuda.get_device_properties(sft_args.device).total_memory
    return psutil.virtual_memory().total / launch.local_world_size
