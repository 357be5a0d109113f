"""Fine-tune a causal language model on prompt/completion rows, such as those `evolve_dataset.py` writes.

    python recipes/sft.py --config recipes/quickstart/sft.yaml --dataset_name outputs/dataset \\
        --output_dir outputs/model
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/sft.py --config … --dataset_name …

Only the answers are learned (`completion_only_loss`). Stopped or killed, the same command goes on from its last
checkpoint.
"""

import hashlib
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.arguments import guarded, parse, run_arguments
from teamsrl_hf.runs import finish_run, open_run


@dataclass
class SFTArguments:
    """What is learned from, and whether the base model is a toy."""

    dataset_name: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dataset."})
    dataset_config: str | None = field(default=None, metadata={"help": "Its configuration; left out: the default."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split to measure the loss on; where there is none, 5 % are held out."}
    )
    tiny_model: bool = field(
        default=False,
        metadata={"help": "Build a tiny random base model from the dataset's text, in place of model_name_or_path."},
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Load, train, measure before and after, save. Returns losses, counts and where the model lies."""
    from trl import ModelConfig, SFTConfig

    script_args, model_args, sft_args = parse((SFTArguments, ModelConfig, SFTConfig), argv)
    check_arguments(script_args, model_args, sft_args)
    train, test = load_rows(script_args, sft_args)
    arguments = run_arguments(script_args, model_args, sft_args, without=("dataset_name", "output_dir"))
    with sft_args.main_process_first():  # Else the others meet a folder that is half claimed.
        done = open_run(sft_args.output_dir, {"rows": rows_digest(train, test), **arguments})
    if done is not None:
        print(f"{sft_args.output_dir} is already complete.")
        return done
    summary = fine_tune(train, test, script_args, model_args, sft_args)
    if sft_args.process_index == 0:
        finish_run(sft_args.output_dir, summary)
    return summary


def check_arguments(script_args: SFTArguments, model_args, sft_args) -> None:
    """Settle the arguments; ValueError for what is missing, doubled or not done here."""
    if not script_args.dataset_name:
        raise ValueError("No dataset given; pass --dataset_name FOLDER_OR_HUB_ID.")
    if script_args.tiny_model == bool(model_args.model_name_or_path):
        raise ValueError("Give either --model_name_or_path FOLDER_OR_HUB_ID or --tiny_model true.")
    if sft_args.push_to_hub:
        raise ValueError("push_to_hub is not done while training; run `teamsrl push` on the finished folder.")
    if sft_args.assistant_only_loss:
        raise ValueError("assistant_only_loss is for `messages` rows; completion_only_loss does the same for these.")
    if sft_args.completion_only_loss is None:
        sft_args.completion_only_loss = True
    # Inside train(), since DeepSpeed and FSDP have no engine to evaluate with before it.
    sft_args.eval_on_start = True


def load_rows(script_args: SFTArguments, sft_args) -> tuple[Any, Any]:
    """Checked rows to train and to test on."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    from teamsrl_hf.paths import folder_cache
    from teamsrl_hf.sft import check_sft_dataset, first_line, hold_out

    name = script_args.dataset_name
    try:
        cache_dir = folder_cache(name) if Path(name).is_dir() else None
        splits = load_dataset(name, script_args.dataset_config, cache_dir=cache_dir)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(f"Can't load dataset {name!r} (a folder or a Hub id): {first_line(error)}") from error
    if script_args.dataset_train_split not in splits:
        raise ValueError(
            f"Dataset {name!r} has no split {script_args.dataset_train_split!r}, only {', '.join(splits)}."
        )
    train = check_sft_dataset(splits[script_args.dataset_train_split])
    if script_args.dataset_test_split not in splits:
        return hold_out(train, sft_args.seed)
    return train, check_sft_dataset(splits[script_args.dataset_test_split])


def rows_digest(*datasets) -> str:
    """A hash of all texts, to tell whether a folder's run was made from the same rows."""
    from teamsrl_hf.sft import chat_texts

    digest = hashlib.blake2b(digest_size=8)
    for dataset in datasets:
        for text in chat_texts(dataset):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def fine_tune(train, test, script_args: SFTArguments, model_args, sft_args) -> dict[str, Any]:
    """The stages: model, tokens, trainer, train (which evaluates first), evaluate, save, card."""
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTTrainer, get_peft_config

    from teamsrl_hf.sft import count_parameters

    if script_args.tiny_model:
        model_args.model_name_or_path = build_base(train, sft_args)
    model, tokenizer = load_model(model_args, sft_args)
    train_tokens, cut = encode(train, tokenizer, sft_args)
    test_tokens, _ = encode(test, tokenizer, sft_args)
    trainer = SFTTrainer(
        model=model,
        args=sft_args,
        train_dataset=train_tokens,
        eval_dataset=test_tokens,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )
    trainable, total = count_parameters(trainer.model)
    checkpoint = sft_args.resume_from_checkpoint or get_last_checkpoint(sft_args.output_dir)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    summary = {
        "model": str(sft_args.output_dir),
        **measures(losses[0], trainer.evaluate()["eval_loss"]),
        "rows": len(train),
        "test_rows": len(test),
        "cut_rows": cut,
        "steps": trainer.state.global_step,
        "processes": sft_args.world_size,
        "trainable_parameters": trainable,
        "parameters": total,
        "seconds": round(trained.metrics["train_runtime"], 1),
    }
    save(trainer, summary, script_args, model_args, sft_args)
    trainer.end()
    return summary


def build_base(train, sft_args) -> str:
    """The tiny base model's folder, `base` in the output folder; one process of a machine writes it."""
    from teamsrl_hf.sft import build_tiny_model, chat_texts

    base = Path(sft_args.output_dir) / "base"
    with sft_args.main_process_first():
        if sft_args.local_process_index == 0:
            build_tiny_model(chat_texts(train), base, sft_args.seed)
    return str(base)


def load_model(model_args, sft_args) -> tuple[Any, Any]:
    """Base model, quantized where asked, and its tokenizer with a chat template and an end-of-sequence token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import get_quantization_config

    from teamsrl_hf.sft import first_line, guard_cpu_4bit, settle_chat_template

    name = model_args.model_name_or_path
    source = {"revision": model_args.model_revision, "trust_remote_code": sft_args.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            **source,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=get_quantization_config(model_args),
            use_safetensors=True,
        )
    except OSError as error:
        raise ValueError(f"Can't load model {name!r} (a folder or a Hub id): {first_line(error)}") from error
    except ImportError as error:
        raise ValueError(f"{first_line(error)} (for 4-bit: pip install 'teamsrl-hf[quantization]')") from error
    guard_cpu_4bit(model)
    return model, settle_chat_template(tokenizer, sft_args.eos_token, sft_args.chat_template_path)


def encode(rows, tokenizer, sft_args) -> tuple[Any, int]:
    """Rows as token ids, and how many of them are longer than `max_length`, so that their end is lost."""
    from teamsrl_hf.sft import tokenize

    with sft_args.main_process_first():
        tokens = tokenize(rows, tokenizer, sft_args.dataset_num_proc)
    limit = sft_args.max_length
    if not any(1 in mask[:limit] for mask in tokens["completion_mask"]):
        raise ValueError(f"Every prompt fills max_length = {limit} tokens, leaving no answer to learn; raise it.")
    return tokens, sum(len(ids) > limit for ids in tokens["input_ids"]) if limit else 0


def measures(before: float, after: float) -> dict[str, float]:
    """Losses (nats per answer token, mean over batches) and the perplexities they mean."""
    return {
        "loss_before": before,
        "loss_after": after,
        "perplexity_before": math.exp(before),
        "perplexity_after": math.exp(after),
    }


def save(trainer, summary: dict[str, Any], script_args: SFTArguments, model_args, sft_args) -> None:
    """Adapter (or whole model), tokenizer and card."""
    from teamsrl_hf.sft import sft_card

    trainer.save_model(sft_args.output_dir)
    if sft_args.process_index:
        return
    folder = Path(sft_args.output_dir)
    (folder / "training_args.bin").unlink(missing_ok=True)  # A pickle, and nothing reads it.
    (folder / "README.md").write_text(sft_card(summary, script_args, model_args, sft_args), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(guarded(main))
