"""Memory of a fine-tuning: in go a model's configuration and settings, out come parameters and bytes per device.

No weight is loaded: parameters are counted on a model without storage. The bytes are an estimate without kernels' work
space and fragmentation, for which `fits` keeps a reserve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, did_you_mean
from ..loading import library

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9
# A CUDA context, or a Python process with torch; and what an allocator loses to fragments.
CONTEXT, SLACK = 1 * GB, 0.1


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, counted and not loaded."""

    parameters: int  # of the base model
    trainable: int
    adapter: int  # parameters that an adapter adds; all of them are trainable
    linear: int  # weights that a quantization packs: linear layers without the output layer
    largest: int  # parameters of one decoder layer, which a sharded run gathers whole
    layers: int
    hidden: int
    intermediate: int
    queries: int  # width of all query heads together
    keys: int  # width of all key heads together


@dataclass(frozen=True)
class Launch:
    """How processes share the work, from the launcher's environment variables."""

    world_size: int = 1
    local_world_size: int = 1
    zero_stage: int = 0
    fsdp: bool = False
    offload_optimizer: bool = False
    offload_parameters: bool = False
    mixed_precision: str | None = None
    launched: bool = False  # by something that gives each process a device of its own

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Launch":
        """Read what `accelerate launch` sets.

        >>> Launch.from_environ({"WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true"}).shards_weights
        True
        """

        def true(name: str) -> bool:
            return environ.get(name, "").lower() == "true"

        deepspeed, fsdp = true("ACCELERATE_USE_DEEPSPEED"), true("ACCELERATE_USE_FSDP")
        world = int(environ.get("WORLD_SIZE", 1))
        offload = {what: environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE") for what in ("OPTIMIZER", "PARAM")}
        return cls(
            world_size=world,
            local_world_size=int(environ.get("LOCAL_WORLD_SIZE", world)),
            zero_stage=int(environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 0)) if deepspeed else 0,
            fsdp=fsdp,
            offload_optimizer=deepspeed and offload["OPTIMIZER"] in ("cpu", "nvme"),
            offload_parameters=(deepspeed and offload["PARAM"] in ("cpu", "nvme"))
            or (fsdp and true("FSDP_OFFLOAD_PARAMS")),
            mixed_precision=environ.get("ACCELERATE_MIXED_PRECISION"),
            launched="LOCAL_RANK" in environ,
        )

    @property
    def shards_weights(self) -> bool:
        return self.fsdp or self.zero_stage == 3


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device, by purpose."""

    shape: Shape
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations

    def fits(self, available: float) -> bool:
        """Whether the estimate and a reserve fit into `available` bytes.

        >>> Estimate(None, 10e9, 2e9, 4e9, 3e9).fits(24e9), Estimate(None, 14e9, 2e9, 4e9, 3e9).fits(24e9)
        (True, False)
        """
        return self.total * (1 + SLACK) + CONTEXT <= available


def model_shape(config: Any, peft_config: Any = None) -> Shape:
    """Count a causal LM's parameters, and those an adapter would train, without storage for either.

    Raises:
        UserError: transformers has no causal LM for this configuration, or the adapter fits none of its layers.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise UserError(f"A {config.model_type!r} model is no causal language model; give one that generates text.")
    with torch.device("meta"):
        # Not AutoModel.from_config: once ZeRO-3 arguments exist, that would partition what has no storage.
        model = model_class(config)
    parameters = trainable = sum(p.numel() for p in model.parameters())
    head = model.get_output_embeddings()
    packed = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    linear = sum(layer.weight.numel() for layer in packed)
    blocks = next((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), [model])
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
    adapter = 0
    if peft_config is not None:
        from peft import get_peft_model

        # PEFT says nothing where these name no module.
        names = dict.fromkeys(part for name, _ in model.named_modules() for part in name.split("."))
        for name in () if peft_config.modules_to_save is None else peft_config.modules_to_save:
            if name.rpartition(".")[2] not in names:
                raise UserError(
                    f"lora_modules_to_save names {name!r}, no module of the model{did_you_mean(name, names)}"
                )
        with library("The adapter does not fit the model"):
            adapted = get_peft_model(model, peft_config, low_cpu_mem_usage=True)
        trainable, everything = adapted.get_nb_trainable_parameters()
        adapter = everything - parameters
    return Shape(parameters, trainable, adapter, linear, largest, *_widths(config.get_text_config()))


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters, before any quantization or sharding."""
    if hasattr(model, "get_nb_trainable_parameters"):  # PEFT's, which unpacks 4-bit weights in its count
        return model.get_nb_trainable_parameters()
    # Under ZeRO-3 a process holds a part of each parameter; `ds_numel` is the whole's size.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def _widths(config: Any) -> tuple[int, int, int, int, int]:
    """Layers, and the widths of hidden state, feed-forward layer, queries and keys; GPT-2's names serve as well."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    intermediate = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
    keys = getattr(config, "num_key_value_heads", None) or heads
    return config.num_hidden_layers, hidden, intermediate, heads * head, keys * head


def activation_bytes(shape: Shape, tokens: int, width: int, residual: int, checkpointing: bool) -> float:
    """Bytes that autograd keeps for the backward pass of `tokens` tokens: gated decoder layers, fused attention.

    A layer keeps of each norm the input in single precision, the normalised input and the output; queries, keys,
    values and the output of attention; and four times the feed-forward width. With checkpointing: every layer's input,
    and all of one layer. `width` and `residual` are bytes per number in matrix products and in the residual stream.
    """
    norms = shape.hidden * (8 + 2 * residual + 2 * width)
    layer = norms + width * (3 * shape.queries + 2 * shape.keys + 4 * shape.intermediate)
    kept = shape.layers * residual * shape.hidden + layer if checkpointing else shape.layers * layer
    return tokens * (kept + 3 * residual * shape.hidden)


def estimate_memory(
    shape: Shape,
    *,
    tokens: int,
    dtype: str = "float32",
    mixed: bool = False,
    bits: int = 0,
    double_quantization: bool = False,
    optimizer: str = "adamw_torch_fused",
    checkpointing: bool = True,
    launch: Launch = Launch(),
) -> Estimate:
    """Bytes on each device.

    Args:
        tokens: Tokens of a forward pass on one device: batch size times length.
        dtype: Precision the weights are loaded in.
        mixed: Whether training computes in half precision with weights in single precision.
        bits: 4 or 8 for a quantized base, else 0.
        optimizer: A name of `TrainingArguments.optim`.
    """
    width = _trained_width(shape, dtype, mixed, launch)
    frozen = shape.parameters + shape.adapter - shape.trainable
    packed = min(shape.linear, frozen) if bits else 0
    # An adapter may train whole layers too, as copies; those they were copied from stay and are counted as frozen.
    weights = packed * _packed_width(bits, double_quantization) + (frozen - packed) * WIDTH[dtype]
    weights += shape.trainable * width
    gradients = shape.trainable * width
    states = shape.trainable * _state_width(optimizer, width)
    if launch.zero_stage and mixed:
        states += 4 * shape.trainable  # DeepSpeed keeps single-precision masters beside half-precision weights.
    compute = 2 if mixed else WIDTH[dtype]
    residual = (
        compute if launch.zero_stage or launch.fsdp else WIDTH[dtype]
    )  # Autocast leaves sums in single precision.
    activations = activation_bytes(shape, tokens, compute, residual, checkpointing)
    if mixed and not launch.zero_stage and not launch.fsdp and not shape.adapter:
        activations += 2 * shape.trainable  # Autocast keeps a half-precision copy of each trained weight.
    if launch.shards_weights:
        activations += 2 * shape.largest * compute  # One layer whole, the next under way.
    shards = launch.world_size
    return Estimate(
        shape,
        0.0 if launch.offload_parameters else weights / (shards if launch.shards_weights else 1),
        gradients / (shards if launch.fsdp or launch.zero_stage >= 2 else 1),
        0.0 if launch.offload_optimizer else states / (shards if launch.fsdp or launch.zero_stage >= 1 else 1),
        activations,
    )


def _trained_width(shape: Shape, dtype: str, mixed: bool, launch: Launch) -> int:
    """Bytes of one trained weight: DeepSpeed casts to half precision, FSDP and adapters keep them in single."""
    if launch.zero_stage and mixed:
        return 2
    return 4 if shape.adapter or (launch.fsdp and mixed) else WIDTH[dtype]


def _packed_width(bits: int, double_quantization: bool) -> float:
    """Bytes of one quantized weight: its bits, and a scale for 64 of them (4 bits) that is itself packed or not."""
    return 0.5 + (1 + 4 / 256 if double_quantization else 4) / 64 if bits == 4 else 1.0


def _state_width(optimizer: str, width: int) -> float:
    """Bytes of optimizer state for one trained weight."""
    if "8bit" in optimizer:
        return 2.0
    if optimizer in ("sgd", "adafactor"):
        return 0.0
    return (1 if "lion" in optimizer else 2) * float(width)


def count_steps(
    lengths: Sequence[int],
    *,
    batch: int,
    accumulation: int = 1,
    epochs: float = 1.0,
    max_steps: int = -1,
    pack_to: int | None = None,
) -> int:
    """Optimizer steps of a training on rows of these lengths; with packing, the smallest possible number.

    Args:
        batch: Rows of a forward pass on all processes together.
        pack_to: Length that rows are packed to, if they are.

    >>> count_steps([10] * 70, batch=16, accumulation=2, epochs=3)
    9
    """
    if max_steps > 0:
        return max_steps
    rows = math.ceil(sum(lengths) / pack_to) if pack_to else len(lengths)
    return math.ceil(math.ceil(math.ceil(rows / batch) / accumulation) * epochs)


def estimate_line(estimate: Estimate, available: float, device: str, steps: int, processes: int) -> str:
    """One line to print before training.

    >>> estimate = Estimate(Shape(8_030, 42, 42, 0, 0, 0, 0, 0, 0, 0), 6e9, 2e8, 4e8, 3e9)
    >>> print(estimate_line(estimate, 24e9, "CUDA", 70, 1))
    Estimate: trains 42 of 8,072 parameters in 70 steps on 1 × CUDA; each needs about 9.6 GB (weights 6.0 GB, \
gradients 200 MB, optimizer 400 MB, activations 3.0 GB) of 24.0 GB: fits.
    """
    shape = estimate.shape
    parts = ", ".join(
        f"{name} {_size(getattr(estimate, name))}" for name in ("weights", "gradients", "optimizer", "activations")
    )
    verdict = "fits" if estimate.fits(available) else "will probably NOT fit"
    return (
        f"Estimate: trains {shape.trainable:,} of {shape.parameters + shape.adapter:,} parameters in {steps:,} steps "
        f"on {processes} × {device}; each needs about {_size(estimate.total)} ({parts}) of "
        f"{_size(available)}: {verdict}."
    )


def _size(count: float) -> str:
    return (
        f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
    )
