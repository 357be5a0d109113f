"""What `recipes/sft.py` adds to a bare TRL script: time per optimizer step, same model, rows and settings, same run.

    python tests/benchmarks/bench_sft.py [--steps 60]

Both train the tiny model on the same rows in the same order, in one process and in turns, a step each: what else the
machine does meets both alike. The overhead is the median over steps of ours against theirs on the same batch. The
losses must be equal, or the two did not do the same work.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.paths import resource
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset
from teamsrl_hf.sft.tiny import build_tiny_model

WARM = 5  # First steps allocate.
SHARED = {
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "max_length": 512,
    "train_sampling_strategy": "sequential",
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 10,
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "disable_tqdm": True,
    "seed": 1,
}


class Turns(TrainerCallback):
    """Times each step from the moment its trainer may go on; then it is the other's turn."""

    def __init__(self, mine, other):
        self.mine, self.other, self.steps, self.losses = mine, other, [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.waits = True
        self.mine.acquire()
        self.begun = time.process_time(), time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.process_time(), time.perf_counter()
        self.steps.append(tuple(after - before for before, after in zip(self.begun, now)))
        self.other.release()
        if state.global_step < state.max_steps:
            self.mine.acquire()
            self.begun = time.process_time(), time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])


def rows(count=400):
    """Conversations of very different length, as evolved datasets have them."""
    for number in range(count):
        question = f"Explain subject {number} to a friend, " * (1 + number % 5)
        answer = f"Subject {number} is about {number * 7 % 101} things. " * (3 + number * 13 % 17)
        yield {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": answer}],
        }


def ours(data, model, out, steps, turns):
    """Train by the recipe."""
    recipe = load_recipe("sft")
    build = recipe.build_trainer

    def timed(*args):
        trainer = build(*args)
        trainer.add_callback(turns)
        return trainer

    recipe.build_trainer = timed
    options = {**SHARED, "max_steps": steps, "lora_r": 8, "lora_target_modules": "all-linear", "eval_strategy": "no"}
    argv = ["--config", str(resource("recipes/quickstart/sft.yaml")), "--tiny_model", "false"]
    argv += ["--model_name_or_path", str(model), "--dataset_name", str(data), "--output_dir", str(out)]
    argv += ["--lora_modules_to_save", "embed_tokens", "--lr_scheduler_type", "constant", "--warmup_steps", "0"]
    for name, value in options.items():
        argv += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    recipe.main(argv)


def bare(data, model, out, steps, turns):
    """The same by the few lines of TRL's own documentation."""
    trainer = SFTTrainer(
        model=str(model),
        args=SFTConfig(output_dir=str(out), max_steps=steps, lr_scheduler_type="constant", **SHARED),
        train_dataset=load_dataset(str(data), split="train"),
        peft_config=LoraConfig(
            r=8,
            lora_alpha=16,
            lora_dropout=0.0,
            target_modules="all-linear",
            modules_to_save=["embed_tokens"],
            task_type="CAUSAL_LM",
        ),
        callbacks=[turns],
    )
    trainer.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    first, second = threading.Semaphore(0), threading.Semaphore(0)
    turns = {"recipes/sft.py": Turns(first, second), "bare SFTTrainer": Turns(second, first)}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = Path(folder)
        data = check_sft_dataset(Dataset.from_list(list(rows())))
        data.to_parquet(root / "data" / "train.parquet")
        data.select(range(8)).to_parquet(root / "data" / "test.parquet")
        model = build_tiny_model(chat_texts(data), root / "model", seed=1)
        threads = [
            threading.Thread(
                target=work, args=(root / "data", model, root / work.__name__, args.steps, turn), daemon=True
            )
            for work, turn in zip((ours, bare), turns.values())
        ]
        for thread, turn in zip(threads, turns.values()):  # One after the other comes as far as its first step.
            thread.start()
            while thread.is_alive() and not hasattr(turn, "waits"):
                time.sleep(0.1)
        first.release()
        for thread in threads:
            thread.join()
    report(turns)


def report(turns):
    recipe, script = turns.values()
    if recipe.losses != script.losses or not recipe.losses:
        raise SystemExit(f"error: the losses differ: {recipe.losses} and {script.losses}")
    print(f"{'':<20}{'CPU ms a step':>15}{'wall ms a step':>16}")
    for name, turn in turns.items():
        cpu, wall = (1000 * statistics.median(kind) for kind in zip(*turn.steps[WARM:]))
        print(f"{name:<20}{cpu:>15.2f}{wall:>16.2f}")
    pairs = list(zip(recipe.steps[WARM:], script.steps[WARM:]))
    cpu, wall = (statistics.median(ours[i] / theirs[i] for ours, theirs in pairs) - 1 for i in (0, 1))
    print(f"overhead a step: {cpu:+.1%} CPU, {wall:+.1%} wall (medians of {len(pairs)} pairs, equal losses)")
    print(json.dumps({"pairs": len(pairs), "cpu": cpu, "wall": wall}))


if __name__ == "__main__":
    main()
