"""Speed and memory of `recipes/sft.py` on one device: full, LoRA and 4-bit, on a model of Llama-3.2-1B's shape.

    python tests/gpu/measure_sft.py            # prints a table for tests/gpu/README.md, with date, chip and versions

The weights are random, so nothing is downloaded, and the time is that of the real model. Rows are packed to the full
length: every token counts. Model FLOPs of a token: 6 for each weight in a matrix product where all is trained, 4 where
weights are frozen (they need no gradients), and attention; what checkpointing computes twice is not counted.
"""

import argparse
import datetime
import gc
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.sft import plan
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset
from teamsrl_hf.sft.tiny import train_tokenizer

LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}
SMALL = LLAMA_1B | {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
# Dense bfloat16 FLOPs a second, by the makers' data sheets; a part of the name that torch reports.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear", "learning_rate": 2e-4}
KINDS = {
    "full": {"use_peft": False, "learning_rate": 1e-5},
    "LoRA": LORA,
    "4-bit LoRA": {**LORA, "load_in_4bit": True, "use_bnb_nested_quant": True},
}
WARM = 3


@dataclass
class Measured:
    """What one kind of training took on one device."""

    kind: str
    parameters: int
    trainable: int
    tokens_per_second: float
    peak_memory: float  # bytes; 0 on a CPU
    estimated_memory: float
    utilisation: float | None  # model FLOPs a second over the chip's
    loss_before: float
    loss_after: float


class Clock(TrainerCallback):
    """When each step ended, the device's work done."""

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())


def write_model(folder, shape):
    """A folder with a model of random weights and a tokenizer, and a data set beside it."""
    data = check_sft_dataset(Dataset.from_list(list(rows())))
    data.to_parquet(folder / "data" / "train.parquet")
    data.select(range(8)).to_parquet(folder / "data" / "test.parquet")
    tokenizer = train_tokenizer(chat_texts(data))
    tokenizer.save_pretrained(folder / "model")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape, **ends)).to(torch.bfloat16).save_pretrained(folder / "model")


def rows(count=3000):
    for number in range(count):
        answer = f"Subject {number} is about {number * 7 % 101} things. " * (5 + number * 13 % 40)
        yield {
            "prompt": [{"role": "user", "content": f"Explain subject {number}."}],
            "completion": [{"role": "assistant", "content": answer}],
        }


def flops_per_token(shape, head, length, frozen):
    """Model FLOPs of a training step, for each token of a full row."""
    attention = 12 * shape.layers * shape.queries * length / 2  # A token sees half of its row on average.
    return (4 if frozen else 6) * (shape.linear + head) + attention * (2 / 3 if frozen else 1)


def measure(kind, folder, device="cuda", length=2048, batch=4, steps=12):
    """Run the recipe with `kind` of training; returns what it took."""
    recipe, clock, estimates = load_recipe("sft"), Clock(), []
    build, estimate = recipe.build_trainer, plan.estimate_run

    def timed(*args):
        trainer = build(*args)
        trainer.add_callback(clock)
        return trainer

    def noted(*args):
        estimates.append(estimate(*args))
        return estimates[-1]

    cpu = device == "cpu"
    options = {
        **KINDS[kind],
        "model_name_or_path": folder / "model",
        "dataset_name": folder / "data",
        "output_dir": folder / f"out-{kind.replace(' ', '-')}",
        "dtype": "bfloat16",
        "bf16": True,
        "use_cpu": cpu,
        "packing": True,
        "max_length": length,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": 1,
        "activation_checkpointing": True,
        "max_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    argv = [part for name, value in options.items() for part in (f"--{name}", _word(value))]
    if not cpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    recipe.build_trainer, plan.estimate_run = timed, noted
    try:
        summary = recipe.main(argv)
    finally:
        recipe.build_trainer, plan.estimate_run = build, estimate
    seconds = (clock.marks[-1] - clock.marks[WARM - 1]) / (steps - WARM)
    speed = batch * length / seconds
    shape = estimates[0].shape
    config = LlamaConfig.from_pretrained(folder / "model")
    flops = flops_per_token(shape, config.vocab_size * config.hidden_size, length, kind != "full")
    peak = None if cpu else next((p for n, p in PEAK.items() if n in torch.cuda.get_device_name()), None)
    memory = 0.0 if cpu else float(torch.cuda.max_memory_allocated())
    gc.collect()
    return Measured(
        kind,
        shape.parameters,
        shape.trainable,
        speed,
        memory,
        estimates[0].total,
        flops * speed / peak if peak else None,
        summary["loss_before"],
        summary["loss_after"],
    )


def _word(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def kinds():
    """The kinds of training that can run here."""
    return [kind for kind in KINDS if "4-bit" not in kind or find_spec("bitsandbytes") is not None]


def table(measured, chip):
    names = ("torch", "transformers", "trl", "peft")
    lines = [
        f"{datetime.date.today().isoformat()}, {chip}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ":",
        "",
        "| training | trained / all parameters | tokens a second | peak memory | estimate | model FLOPs used |",
        "|---|---|---|---|---|---|",
    ]
    for m in measured:
        used = "–" if m.utilisation is None else f"{m.utilisation:.0%}"
        lines.append(
            f"| {m.kind} | {m.trainable / 1e6:,.1f} M / {m.parameters / 1e6:,.0f} M | {m.tokens_per_second:,.0f} "
            f"| {m.peak_memory / 1e9:.1f} GB | {m.estimated_memory / 1e9:.1f} GB | {used} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tiny shape on the CPU, to try this script")
    args = parser.parse_args()
    device = "cpu" if args.small else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no CUDA device is here; --small tries the script on the CPU.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sizes = {"length": 128, "batch": 2, "steps": 6} if args.small else {}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SMALL if args.small else LLAMA_1B)
        measured = [measure(kind, Path(folder), device, **sizes) for kind in kinds()]
    print(table(measured, "CPU" if args.small else torch.cuda.get_device_name()))
    print(json.dumps([asdict(m) for m in measured]))


if __name__ == "__main__":
    main()
