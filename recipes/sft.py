"""Fine-tune a causal language model on prompt/completion rows, such as those `evolve_dataset.py` writes.

    python recipes/sft.py --config recipes/quickstart/sft.yaml --dataset_name outputs/dataset \\
        --output_dir outputs/model
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/sft.py --config … --dataset_name …
    teamsrl sft --config recipes/sft/llama_3_1_8b_qlora_24gb.yaml --accelerate_config single_gpu --dataset_name …

The model learns only the responses (`completion_only_loss`). Before it loads a weight, the recipe checks the settings,
reports mistakes in one line, and prints an estimate of the run. After a stop or a kill, the same command resumes from
its last checkpoint. `merge_adapter.py` merges an adapter into its base model.

`teamsrl sft` also starts processes, as `accelerate launch` does, with --accelerate_config, --num_processes,
--mixed_precision, --gpu_ids, --num_machines, --machine_rank, --main_process_ip or --main_process_port.
"""

import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.cli import LAUNCH_OPTIONS
from teamsrl_hf.commands.arguments import guarded, parse, run_arguments
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number
from teamsrl_hf.hub.arguments import HUB_ARGUMENTS, PlannedPush, plan_push
from teamsrl_hf.runs import finish_run, hold, open_run
from teamsrl_hf.sft import checks as sft_checks
from teamsrl_hf.sft.estimate import Launch
from teamsrl_hf.training.checks import check_lora, check_training

# Arguments that may change between a run and the command that resumes it.
_ELSEWHERE = ("dataset_name", "output_dir", "resume_from_checkpoint", *HUB_ARGUMENTS)


@dataclass
class SFTArguments:
    """The dataset, and a tiny base model for trials."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dataset."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of the dataset; left out: the default."}
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split to measure the loss on; if it is missing, rows are held out."}
    )
    datasets: list[dict] | None = field(
        default=None,
        metadata={
            "help": "YAML only, in place of dataset_name: a mixture as TRL has it, each with path, and name, split, "
            "data_files, data_dir, columns, fraction where needed."
        },
    )
    test_split_size: float = field(
        default=0.05, metadata={"help": "Share of rows held out if there is no test split."}
    )
    long_rows: str = field(
        default="cut",
        metadata={"help": "Rows longer than max_length: cut them, or drop them.", "choices": ["cut", "drop"]},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this number of evaluations without a lower loss, and keep the best."},
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


# Classes that import torch are given by name, so that --help does not wait for it.
TYPES = (SFTArguments, "trl.trainer.model_config:ModelConfig", "trl.trainer.sft_config:SFTConfig")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Load, train, measure before and after, save. Returns losses, counts and the model's folder."""
    launch = Launch.from_environ(os.environ)  # Before the arguments exist, which write into it.

    def check(values: dict[str, Any]) -> None:
        sft_checks.check_devices(values["use_cpu"], count_devices(), launch)

    script_args, model_args, sft_args = parse(
        TYPES, argv, "teamsrl sft", __doc__, required=["output_dir"], also=LAUNCH_OPTIONS, check=check
    )
    push = settle_arguments(script_args, model_args, sft_args, launch)
    from teamsrl_hf.sft.data import rows_digest

    train, test = load_rows(script_args, sft_args)
    arguments = run_arguments(script_args, model_args, sft_args, without=_ELSEWHERE)
    with hold(sft_args.output_dir, first=sft_args.process_index == 0):
        with sft_args.main_process_first():  # Otherwise the others would find a folder that is half claimed.
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
    """Number of accelerators of this machine."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def settle_arguments(script_args: SFTArguments, model_args, sft_args, launch: Launch) -> PlannedPush | None:
    """Complete and check the arguments. Returns the push of the result, if one is planned."""
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
    # Evaluation before training runs inside train(): before it, DeepSpeed and FSDP have no engine.
    sft_args.eval_on_start = True
    kind, base = ("adapter", model_args.model_name_or_path) if model_args.use_peft else ("model", None)
    return plan_push(sft_args, kind, base)


def load_rows(script_args: SFTArguments, sft_args) -> tuple[Any, Any]:
    """Checked rows to train and to test on."""
    from teamsrl_hf.sft.data import check_sft_dataset, hold_out, load_mixture, load_source

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


def fine_tune(train, test, script_args: SFTArguments, model_args, sft_args, launch: Launch) -> dict[str, Any]:
    """The stages: tokens, estimate, model, trainer, train (which evaluates first), evaluate, save, card."""
    from trl import get_peft_config

    from teamsrl_hf.loading import check_tokens
    from teamsrl_hf.publish.lineage import RowSet, model_lineage, write_lineage
    from teamsrl_hf.sft.estimate import count_parameters
    from teamsrl_hf.sft.plan import extent, foresee
    from teamsrl_hf.sft.record import training_record

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
        record = training_record(trainer, tokens.texts, learned, script_args, model_args)
        write_lineage(sft_args.output_dir, "model", record)
    trainer.end()
    return summary


def count_known(held_out, learned, sft_args) -> int:
    """How many held-out rows have a prompt that is trained on; their loss says little about new prompts."""
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
    """Rows as token ids and as texts, and how many rows were cut or dropped."""

    rows: Any
    cut: int
    dropped: int
    texts: Any


def encode(rows, tokenizer, script_args: SFTArguments, sft_args) -> Tokens:
    """Tokenized rows; UserError if a prompt alone fills `max_length`."""
    from teamsrl_hf.sft.template import check_lengths, count_broken_prompts, tokenize

    with sft_args.main_process_first():
        tokens = tokenize(rows, tokenizer, sft_args.dataset_num_proc)
    if sft_args.process_index == 0 and (broken := count_broken_prompts(rows, tokenizer)):
        print(
            f"Warning: the chat template renders {broken} of the first {min(200, len(rows))} prompts differently when "
            "a response follows, so the model trains on other prompts than it gets later.",
            file=sys.stderr,
        )
    kept, cut, dropped = check_lengths(tokens, sft_args.max_length, drop=script_args.long_rows == "drop")
    if dropped:
        rows = rows.select([i for i, ids in enumerate(tokens["input_ids"]) if len(ids) <= sft_args.max_length])
    return Tokens(kept, cut, dropped, rows)


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
    """The base model, quantized if the arguments say so."""
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
    """TRL's trainer, with early stopping if the arguments say so."""
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
    """Losses (nats per response token, mean over batches) and perplexities."""
    return {
        "loss_before": before,
        "loss_after": after,
        "perplexity_before": math.exp(before),
        "perplexity_after": math.exp(after),
    }


def save(trainer, summary: dict[str, Any], script_args: SFTArguments, model_args, sft_args) -> None:
    """Save adapter (or whole model), tokenizer, loss curve and card."""
    from teamsrl_hf.sft.card import PLOT, draw_losses, sft_card

    trainer.save_model(sft_args.output_dir)
    if sft_args.process_index:
        return
    folder, history = Path(sft_args.output_dir), trainer.state.log_history
    (folder / "training_args.bin").unlink(missing_ok=True)  # A pickle, and nothing reads it.
    plot = PLOT if draw_losses(history, folder / PLOT) else None
    card = sft_card(summary, script_args, model_args, sft_args, history, plot)
    (folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
