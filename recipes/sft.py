"""Fine-tune a causal language model on prompt/completion rows, such as those `evolve_dataset.py` writes.

    python recipes/sft.py --config recipes/quickstart/sft.yaml --dataset_name outputs/dataset \\
        --output_dir outputs/model
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/sft.py --config … --dataset_name …
    teamsrl sft --config recipes/sft/llama_3_1_8b_qlora_24gb.yaml --accelerate_config single_gpu --dataset_name …

Only the answers are learned (`completion_only_loss`). Before a weight is loaded, what can't work is told in one line,
and then what the run will need. Stopped or killed, the same command goes on from its last checkpoint. An adapter
becomes part of its model with `merge_adapter.py`.

`teamsrl sft` also starts processes, as `accelerate launch` does, with --accelerate_config, --num_processes,
--mixed_precision, --gpu_ids, --num_machines, --machine_rank, --main_process_ip or --main_process_port.
"""

import hashlib
import math
import os
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from teamsrl_hf.cli import LAUNCH_OPTIONS
from teamsrl_hf.commands.arguments import guarded, parse, run_arguments
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number, did_you_mean
from teamsrl_hf.hub.arguments import HUB_ARGUMENTS, PlannedPush, plan_push
from teamsrl_hf.runs import finish_run, hold, open_run
from teamsrl_hf.sft import checks as sft_checks
from teamsrl_hf.sft.estimate import Launch
from teamsrl_hf.training.checks import check_lora, check_training

# What may change between a run and the command that goes on with it.
_ELSEWHERE = ("dataset_name", "output_dir", "resume_from_checkpoint", *HUB_ARGUMENTS)


@dataclass
class SFTArguments:
    """What is learned from, and whether the base model is a toy."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dataset."})
    dataset_config: str | None = field(default=None, metadata={"help": "Its configuration; left out: the default."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split to measure the loss on; where there is none, rows are held out."}
    )
    datasets: list[dict] | None = field(
        default=None,
        metadata={
            "help": "YAML only, in place of dataset_name: a mixture as TRL has it, each with path, and name, split, "
            "data_files, data_dir, columns, fraction where needed."
        },
    )
    test_split_size: float = field(default=0.05, metadata={"help": "Share of rows held out where no split is."})
    long_rows: str = field(
        default="cut",
        metadata={"help": "Rows longer than max_length: cut them, or drop them.", "choices": ["cut", "drop"]},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a lower loss, and keep the best."}
    )
    tiny_model: bool = field(
        default=False,
        metadata={"help": "Build a tiny random base model from the dataset's text, in place of model_name_or_path."},
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the model, as the Hub names it, for its card; left out: on a tiny random base that of "
            "the datasets, else unknown."
        },
    )

    def __post_init__(self):
        check_number("test_split_size", self.test_split_size, above=0, most=0.99)
        if self.early_stopping_patience is not None:
            check_number("early_stopping_patience", self.early_stopping_patience, 1, whole=True)


# Those that import torch are named, so that --help does not wait for it.
TYPES = (SFTArguments, "trl.trainer.model_config:ModelConfig", "trl.trainer.sft_config:SFTConfig")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Load, train, measure before and after, save. Returns losses, counts and where the model lies."""
    launch = Launch.from_environ(os.environ)  # Before the arguments exist, which write into it.

    def check(values: dict[str, Any]) -> None:
        sft_checks.check_devices(values["use_cpu"], count_devices(), launch)

    script_args, model_args, sft_args = parse(
        TYPES, argv, "teamsrl sft", __doc__, required=["output_dir"], also=LAUNCH_OPTIONS, check=check
    )
    push = settle_arguments(script_args, model_args, sft_args, launch)
    train, test = load_rows(script_args, sft_args)
    arguments = run_arguments(script_args, model_args, sft_args, without=_ELSEWHERE)
    with hold(sft_args.output_dir, first=sft_args.process_index == 0):
        with sft_args.main_process_first():  # Else the others meet a folder that is half claimed.
            summary = open_run(sft_args.output_dir, {"rows": rows_digest(train, test), **arguments})
        if summary is not None:
            print(f"{sft_args.output_dir} is already complete.")
        else:
            summary = fine_tune(train, test, script_args, model_args, sft_args, launch)
            if sft_args.process_index == 0:
                finish_run(sft_args.output_dir, summary)
        if push and sft_args.process_index == 0:
            print(push.carry_out(sft_args.output_dir))
        return summary


def count_devices() -> int:
    """Accelerators of this machine."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def settle_arguments(script_args: SFTArguments, model_args, sft_args, launch: Launch) -> PlannedPush | None:
    """Complete the arguments; UserError for what can't work. Returns the push of the result, if one is wanted."""
    from teamsrl_hf.publish.licenses import settle_license

    if bool(script_args.dataset_name) == bool(script_args.datasets):
        raise UserError("Give either --dataset_name FOLDER_OR_HUB_ID or, in the YAML file, several under datasets.")
    if script_args.tiny_model == bool(model_args.model_name_or_path):
        raise UserError("Give either --model_name_or_path FOLDER_OR_HUB_ID or --tiny_model true.")
    if sft_args.assistant_only_loss:
        raise UserError("assistant_only_loss is for `messages` rows; completion_only_loss does the same for these.")
    settle_license(script_args.license, ours=False)
    check_training(sft_args)
    check_lora(model_args)
    for name in ("max_length", "dataset_num_proc", "pad_to_multiple_of"):
        if getattr(sft_args, name) is not None:
            check_number(name, getattr(sft_args, name), 1)
    sft_checks.check_quantization(model_args, launch)
    sft_checks.check_adapter(model_args, launch)
    sft_checks.check_offloading(sft_args, count_devices())
    sft_checks.check_precision(sft_args, launch)
    sft_checks.check_extras(model_args, sft_args)
    sft_checks.settle_early_stopping(script_args.early_stopping_patience, sft_args)
    if sft_args.completion_only_loss is None:
        sft_args.completion_only_loss = True
    # Inside train(), since DeepSpeed and FSDP have no engine to evaluate with before it.
    sft_args.eval_on_start = True
    kind, base = ("adapter", model_args.model_name_or_path) if model_args.use_peft else ("model", None)
    return plan_push(sft_args, kind, base)


def load_rows(script_args: SFTArguments, sft_args) -> tuple[Any, Any]:
    """Checked rows to train and to test on."""
    from teamsrl_hf.sft.data import check_sft_dataset, hold_out

    if script_args.datasets:
        return hold_out(load_mixture(script_args.datasets), sft_args.seed, script_args.test_split_size)
    name = script_args.dataset_name
    splits = load_source(name, script_args.dataset_config)
    if script_args.dataset_train_split not in splits:
        raise UserError(
            f"Dataset {name!r} has no split {script_args.dataset_train_split!r}, only {', '.join(splits)}."
        )
    train = check_sft_dataset(splits[script_args.dataset_train_split])
    if script_args.dataset_test_split not in splits:
        return hold_out(train, sft_args.seed, script_args.test_split_size)
    return train, check_sft_dataset(splits[script_args.dataset_test_split])


def load_source(name: str, config: str | None = None, **options) -> Any:
    """What `load_dataset` makes of a folder or Hub id; what is wrong with it in one line."""
    from datasets import load_dataset

    from teamsrl_hf.loading import loading
    from teamsrl_hf.paths import folder_cache

    with loading("dataset", name):
        cache_dir = folder_cache(name) if Path(name).is_dir() else None
        return load_dataset(name, config, cache_dir=cache_dir, **options)


def load_mixture(parts: list[dict]) -> Any:
    """The rows of several datasets, listed as in TRL's `DatasetMixtureConfig`."""
    from trl.scripts.utils import DatasetConfig

    from teamsrl_hf.sft.data import check_sft_dataset, mix_datasets

    loaded, fractions = [], []
    for part in parts:
        known = [one.name for one in fields(DatasetConfig)]
        if "path" not in part or set(part) - set(known):
            hint = did_you_mean(" ".join(set(part) - set(known)), known)
            raise UserError(
                f"Can't read {part} of the mixture; it needs path and may have {', '.join(known[1:])}{hint}"
            )
        source = DatasetConfig(**part)
        files = {"data_dir": source.data_dir, "data_files": source.data_files}
        rows = load_source(source.path, source.name, split=source.split, **files)
        try:
            loaded.append(check_sft_dataset(rows.select_columns(source.columns) if source.columns else rows))
        except ValueError as error:
            raise UserError(f"Dataset {source.path!r} of the mixture: {error}") from error
        fractions.append(source.fraction)
    return mix_datasets(loaded, fractions)


def rows_digest(*datasets) -> str:
    """A hash of all texts, to tell whether a folder's run was made from the same rows."""
    from teamsrl_hf.sft.data import chat_texts

    digest = hashlib.blake2b(digest_size=8)
    for dataset in datasets:
        for text in chat_texts(dataset):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def fine_tune(train, test, script_args: SFTArguments, model_args, sft_args, launch: Launch) -> dict[str, Any]:
    """The stages: tokens, estimate, model, trainer, train (which evaluates first), evaluate, save, card."""
    from trl import get_peft_config

    from teamsrl_hf.loading import check_tokens
    from teamsrl_hf.publish.lineage import RowSet, model_lineage, write_lineage
    from teamsrl_hf.sft.estimate import count_parameters

    tokenizer, config = load_tokenizer(train, script_args, model_args, sft_args)
    tokens = encode(train, tokenizer, script_args, sft_args)
    test_tokens = encode(test, tokenizer, script_args, sft_args)
    check_tokens(config, *extent([*tokens.rows["input_ids"], *test_tokens.rows["input_ids"]], sft_args))
    sft_args.eos_token = tokenizer.eos_token  # TRL writes it into the model's configurations.
    if sft_args.process_index == 0:
        print(foresee(tokens.rows, config, model_args, sft_args, launch), file=sys.stderr)
    if script_args.tiny_model:
        model_args.model_name_or_path = build_base(train, tokenizer, script_args, sft_args)
    before = model_lineage(model_args.model_name_or_path)
    learned = RowSet.of(tokens.texts) | (before["trained_on"] if before else RowSet.of([]))
    known = count_known(test_tokens.texts, learned, sft_args)
    model = load_model(model_args, sft_args)
    peft_config = get_peft_config(model_args)
    if peft_config and model_args.model_revision != "main":
        peft_config.revision = model_args.model_revision  # So that whoever loads the adapter gets this base.
    trainer = build_trainer(model, tokenizer, tokens, test_tokens, peft_config, script_args, sft_args)
    trainable, total = count_parameters(trainer.model)
    trained = trainer.train(resume_from_checkpoint=trainer.checkpoint_to_resume())
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    summary = {
        "model": str(sft_args.output_dir),
        **measures(losses[0], trainer.evaluate()["eval_loss"]),
        "rows": len(tokens.rows),
        "test_rows": len(test_tokens.rows),
        "known_test_rows": known,
        "cut_rows": tokens.cut,
        "dropped_rows": tokens.dropped,
        "steps": trainer.state.global_step,
        "processes": sft_args.world_size,
        "wrapper": type(trainer.model_wrapped).__name__,
        "trainable_parameters": trainable,
        "parameters": total,
        "seconds": round(trained.metrics["train_runtime"], 1),
    }
    save(trainer, summary, script_args, model_args, sft_args)
    if sft_args.process_index == 0:
        write_lineage(sft_args.output_dir, "model", origin(trainer, tokens.texts, learned, script_args, model_args))
    trainer.end()
    return summary


def count_known(held_out, learned, sft_args) -> int:
    """How many held-out rows have a prompt that is trained on; their loss says little of new prompts."""
    from teamsrl_hf.publish.lineage import prompt_key

    known = sum(prompt_key(row) in learned.prompts for row in held_out)
    if known == len(held_out):
        raise UserError(
            f"The prompts of all {known} rows that the loss is to be measured on are trained on; name another split "
            "with dataset_test_split, or one that is not there, and rows are held out."
        )
    if known and sft_args.process_index == 0:
        print(
            f"Warning: the prompts of {known} of {len(held_out)} rows that the loss is measured on are trained on.",
            file=sys.stderr,
        )
    return known


def load_tokenizer(train, script_args: SFTArguments, model_args, sft_args) -> tuple[Any, Any]:
    """A tokenizer whose chat template ends answers as it ends a sequence, and the model's configuration."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import cached_file

    from teamsrl_hf.loading import loading, refuse_policy
    from teamsrl_hf.sft.data import chat_texts
    from teamsrl_hf.sft.template import settle_chat_template
    from teamsrl_hf.sft.tiny import tiny_config, train_tokenizer

    if script_args.tiny_model:
        tokenizer = train_tokenizer(chat_texts(train))
        return tokenizer, tiny_config(tokenizer)
    name = model_args.model_name_or_path
    revision = model_args.model_revision
    with loading("model", name):
        if cached_file(name, "adapter_config.json", revision=revision, _raise_exceptions_for_missing_entries=False):
            raise UserError(f"{name!r} is an adapter; merge it first with recipes/merge_adapter.py, or give its base.")
        refuse_policy(name, revision=revision)
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    before = tokenizer.eos_token
    settle_chat_template(tokenizer, sft_args.eos_token, sft_args.chat_template_path)
    if before != tokenizer.eos_token and sft_args.process_index == 0:
        print(f"Answers will end with {tokenizer.eos_token!r}, not {before!r}.", file=sys.stderr)
    return tokenizer, config


@dataclass
class Tokens:
    """Rows as token ids, how many of them lose their end, how many were left out, and the texts of the others."""

    rows: Any
    cut: int
    dropped: int
    texts: Any


def encode(rows, tokenizer, script_args: SFTArguments, sft_args) -> Tokens:
    """Tokenized rows that leave something to learn within `max_length`."""
    from teamsrl_hf.sft.template import check_lengths, count_broken_prompts, tokenize

    with sft_args.main_process_first():
        tokens = tokenize(rows, tokenizer, sft_args.dataset_num_proc)
    if sft_args.process_index == 0 and (broken := count_broken_prompts(rows, tokenizer)):
        print(
            f"Warning: the chat template shows {broken} of the first {min(200, len(rows))} prompts otherwise when an "
            "answer follows, so the model learns another context than it will be asked in.",
            file=sys.stderr,
        )
    kept, cut, dropped = check_lengths(tokens, sft_args.max_length, drop=script_args.long_rows == "drop")
    if dropped:
        rows = rows.select([i for i, ids in enumerate(tokens["input_ids"]) if len(ids) <= sft_args.max_length])
    return Tokens(kept, cut, dropped, rows)


def extent(ids: list[list[int]], sft_args) -> tuple[int, int]:
    """The highest id of a token, and the tokens of the longest row that the model will see."""
    longest = max(map(len, ids))
    if sft_args.max_length is not None:
        longest = sft_args.max_length if sft_args.packing else min(longest, sft_args.max_length)
    return max(map(max, ids)), longest


def foresee(rows, config, model_args, sft_args, launch: Launch) -> str:
    """The line that tells what will be trained, for how long, and whether it fits."""
    from teamsrl_hf.sft.estimate import count_steps, estimate_line

    limit, batch = sft_args.max_length, sft_args.per_device_train_batch_size
    lengths = [min(len(ids), limit or len(ids)) for ids in rows["input_ids"]]
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


def estimate_run(config, length: int, model_args, sft_args, launch: Launch) -> Any:
    """Bytes on each device when a forward pass takes rows of `length` tokens."""
    from trl import get_peft_config

    from teamsrl_hf.sft.estimate import estimate_memory, model_shape

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


def memory_per_process(sft_args, launch: Launch) -> float:
    """Bytes of the device, or of this machine's memory shared by its processes."""
    import psutil
    import torch

    if sft_args.device.type == "cuda":
        return torch.cuda.get_device_properties(sft_args.device).total_memory
    return psutil.virtual_memory().total / launch.local_world_size


def build_base(train, tokenizer, script_args: SFTArguments, sft_args) -> str:
    """The tiny base model's folder, `base` in the output folder; one process of a machine writes it."""
    from teamsrl_hf.sft.card import base_card
    from teamsrl_hf.sft.data import chat_texts
    from teamsrl_hf.sft.tiny import build_tiny_model

    base = Path(sft_args.output_dir) / "base"
    with sft_args.main_process_first():
        if sft_args.local_process_index == 0:
            build_tiny_model(chat_texts(train), base, sft_args.seed, tokenizer)
            (base / "README.md").write_text(base_card(script_args), encoding="utf-8")
    return str(base)


def load_model(model_args, sft_args) -> Any:
    """Base model, quantized where asked."""
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    from teamsrl_hf.loading import loading
    from teamsrl_hf.ppo.quantization import guard_cpu_4bit

    name = model_args.model_name_or_path
    with loading("model", name):
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=model_args.model_revision,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=get_quantization_config(model_args),
            use_safetensors=True,
            trust_remote_code=False,
        )
    guard_cpu_4bit(model)
    return model


def build_trainer(model, tokenizer, tokens: Tokens, test_tokens: Tokens, peft_config, script_args, sft_args) -> Any:
    """TRL's trainer, told to stop early where that was asked for."""
    from transformers import EarlyStoppingCallback
    from trl import SFTTrainer

    from teamsrl_hf.loading import library
    from teamsrl_hf.training.resumable import Resumable

    class ResumableSFTTrainer(Resumable, SFTTrainer):
        """TRL's trainer; killed and run again, it ends with the same weights."""

    patience = script_args.early_stopping_patience
    with library("TRL's trainer can't be made with these options"):
        return ResumableSFTTrainer(
            model=model,
            args=sft_args,
            train_dataset=tokens.rows,
            eval_dataset=test_tokens.rows,
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[EarlyStoppingCallback(patience)] if patience is not None else None,
        )


def measures(before: float, after: float) -> dict[str, float]:
    """Losses (nats per answer token, mean over batches) and the perplexities they mean."""
    return {
        "loss_before": before,
        "loss_after": after,
        "perplexity_before": math.exp(before),
        "perplexity_after": math.exp(after),
    }


def save(trainer, summary: dict[str, Any], script_args: SFTArguments, model_args, sft_args) -> None:
    """Adapter (or whole model), tokenizer, loss curve and card."""
    from teamsrl_hf.sft.card import PLOT, draw_losses, sft_card

    trainer.save_model(sft_args.output_dir)
    if sft_args.process_index:
        return
    folder, history = Path(sft_args.output_dir), trainer.state.log_history
    (folder / "training_args.bin").unlink(missing_ok=True)  # A pickle, and nothing reads it.
    plot = PLOT if draw_losses(history, folder / PLOT) else None
    card = sft_card(summary, script_args, model_args, sft_args, history, plot)
    (folder / "README.md").write_text(card, encoding="utf-8")


def origin(trainer, texts, learned, script_args: SFTArguments, model_args) -> dict[str, Any]:
    """What the saved model was made from; `learned` is what it and, where that is known, its base were trained on."""
    from teamsrl_hf.publish.lineage import RowSet, identity, read_lineage, versions, weights_digest
    from teamsrl_hf.sft.card import dataset_sources

    args, state = trainer.args, trainer.state
    last = state.best_global_step if args.load_best_model_at_end else None
    sources = dataset_sources(script_args)
    records = {name: read_lineage(name, "dataset") or read_lineage(name, "split") or {} for name in sources}
    return {
        "weights": weights_digest(args.output_dir),
        "base": identity(model_args.model_name_or_path, model_args.model_revision),
        "trained_on": learned.to_json(),
        "rows": len(texts),
        "fingerprint": RowSet.of(texts).fingerprint,
        "passes": state.epoch * (last or state.global_step) / state.global_step,
        "max_length": args.max_length,
        "datasets": [{"name": name, "seeds": record.get("seeds")} for name, record in records.items()],
        "split": script_args.dataset_train_split,
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
