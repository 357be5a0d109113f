"""Checks of a fine-tuning's settings: in go arguments, out comes nothing, or an error of one line.

They run before any weight is loaded. Several of these mistakes would otherwise train wrongly without a message.
"""

from importlib.util import find_spec
from typing import Any

from ..errors import UserError
from .estimate import Launch


def check_devices(use_cpu: bool, devices: int, launch: Launch) -> None:
    """UserError for processes without a device of their own, and for FSDP on a CPU."""
    processes = launch.local_world_size
    if use_cpu and launch.fsdp:
        raise UserError(
            "FSDP on a CPU would silently train as plain DDP; use accelerate_configs/ddp.yaml or zero3.yaml there, "
            "or leave use_cpu out on a machine with GPUs."
        )
    if use_cpu:
        return
    if not devices:
        raise UserError(
            f"No GPU is here for {processes} process{'es' if processes > 1 else ''}; "
            "run where there is one, or pass --use_cpu true --bf16 false for a trial on the CPU."
        )
    if devices > 1 and launch.world_size == 1 and not launch.launched:
        # transformers would split each batch over all of them, which TRL refuses once the model is loaded.
        raise UserError(
            f"One process sees {devices} GPUs; pass --accelerate_config ddp --num_processes {devices} to teamsrl sft, "
            "or choose one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    if processes > devices:
        # accelerate would let them share devices, and NCCL hang or fail much later.
        raise UserError(
            f"{processes} processes were started on a machine with {devices} GPU{'s' if devices > 1 else ''}; "
            f"pass --num_processes {devices} to the launcher."
        )


def check_quantization(model_args: Any, launch: Launch) -> None:
    """UserError for a quantized base that can't be trained or sharded; `model_args` are TRL's."""
    if not (model_args.load_in_4bit or model_args.load_in_8bit):
        return
    option = "load_in_4bit" if model_args.load_in_4bit else "load_in_8bit"
    if not model_args.use_peft:
        raise UserError(f"{option} is set for a full fine-tuning; add use_peft: true (QLoRA), or drop {option}.")
    if launch.shards_weights and model_args.load_in_8bit:
        raise UserError("load_in_8bit can't be sharded by ZeRO-3 or FSDP; use load_in_4bit, or zero2.yaml.")
    storage, dtype = model_args.bnb_4bit_quant_storage or "uint8", model_args.dtype
    if launch.shards_weights and storage != dtype:
        raise UserError(
            f"bnb_4bit_quant_storage is {storage!r} and dtype {dtype!r}: ZeRO-3 and FSDP shard weights of one type "
            f"only; set both to the same, such as bfloat16."
        )


def check_adapter(model_args: Any, launch: Launch) -> None:
    """UserError if TRL's fused loss, which reads the output layer's weights itself, would train an adapter wrongly."""
    if not model_args.use_peft:
        return
    if "lm_head" in (model_args.lora_target_modules or []):
        raise UserError("lora_target_modules holds lm_head; list it under lora_modules_to_save to train it in full.")
    if launch.fsdp and "lm_head" in (model_args.lora_modules_to_save or []):
        # Measured on two processes: equal losses, but a gradient norm of 2.18 where DDP has 2.13.
        raise UserError(
            "lora_modules_to_save holds lm_head, whose gradients come out wrong under FSDP; leave it out, "
            "or use accelerate_configs/zero3.yaml."
        )


def check_precision(sft_args: Any, launch: Launch) -> None:
    """UserError if the launcher's precision differs from the recipe's; DeepSpeed would fail late, DDP not at all."""
    ours = "bf16" if sft_args.bf16 else "fp16" if sft_args.fp16 else "no"
    theirs = launch.mixed_precision or "no"
    sharded = launch.fsdp or launch.zero_stage
    if theirs != ours and (sharded or theirs != "no"):
        setting = "bf16: false" if theirs == "no" else f"{theirs}: true"
        raise UserError(
            f"The accelerate config says mixed_precision: {theirs}, the recipe {ours}; pass --mixed_precision {ours} "
            f"to the launcher, or set {setting} in the recipe."
        )


def check_offloading(sft_args: Any, devices: int) -> None:
    """UserError for activation offloading on a CPU."""
    if sft_args.activation_offloading and (sft_args.use_cpu or not devices):
        raise UserError("activation_offloading moves activations from a GPU to the CPU; leave it out on a CPU.")


def check_extras(model_args: Any, sft_args: Any) -> None:
    """UserError for kernels that are not installed."""
    if (model_args.load_in_4bit or model_args.load_in_8bit) and find_spec("bitsandbytes") is None:
        raise UserError("A quantized base needs bitsandbytes; pip install 'teamsrl-hf[quantization]'.")
    attention = model_args.attn_implementation or ""
    if attention.startswith("flash_attention") and find_spec("flash_attn") is None:
        raise UserError(
            f"attn_implementation {attention!r} needs the package flash-attn; install it, or leave the line out: "
            "sdpa, the default, needs nothing and serves packing too."
        )
    if sft_args.packing and sft_args.max_length is None:
        raise UserError("packing needs max_length, the length to fill; give one.")


def settle_early_stopping(patience: int | None, sft_args: Any) -> None:
    """Make `sft_args` keep the best checkpoint for early stopping; UserError if it can't be known."""
    if patience is None:
        return
    evaluate, save = str(sft_args.eval_strategy.value), str(sft_args.save_strategy.value)
    if evaluate == "no" or save != evaluate:
        raise UserError(
            f"early_stopping_patience needs eval_strategy and save_strategy to be the same, steps or epoch; "
            f"they are {evaluate} and {save}."
        )
    if evaluate == "steps" and sft_args.save_steps % sft_args.eval_steps:
        raise UserError(
            f"early_stopping_patience needs save_steps to be a multiple of eval_steps; "
            f"{sft_args.save_steps:g} is none of {sft_args.eval_steps:g}."
        )
    sft_args.load_best_model_at_end = True
    sft_args.metric_for_best_model, sft_args.greater_is_better = "eval_loss", False
    sft_args.restore_callback_states_from_checkpoint = True  # Otherwise a resumed run would start with full patience.
