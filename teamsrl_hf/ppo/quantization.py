"""Four-bit layers on a CPU: in goes a freshly loaded model, out comes one whose gradients stay right."""

from typing import Any


def guard_cpu_4bit(model: Any) -> int:
    """Keep the 4-bit layers of a model on the CPU trainable after an evaluation; returns how many were guarded.

    On processors with AVX512-BF16, bitsandbytes repacks such a layer in its first forward in evaluation mode for an
    operation without gradients; training then continues with wrong ones. Call this before the first forward.
    """
    layers = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
