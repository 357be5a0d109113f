"""TRL's GRPO for a language model: in go prompts and a reward function, out come a trainer and a saved model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..loading import library, loading, refuse_policy
from ..models.base import Sampling
from ..models.local import TransformersGenerator
from ..training.checks import check_lora, check_training


def check_grpo(model_args: Any, grpo_args: Any) -> None:
    """UserError for what can't be trained here."""
    if not model_args.model_name_or_path:
        raise UserError("No model is named; give --model_name_or_path FOLDER_OR_HUB_ID.")
    if grpo_args.push_to_hub:
        raise UserError(
            "Train first, then push the folder with `teamsrl push FOLDER USER/NAME`; leave out push_to_hub."
        )
    check_training(grpo_args)
    check_lora(model_args)


def grpo_trainer(rows: Any, reward: Callable[..., list], model_args: Any, grpo_args: Any) -> Any:
    """TRL's trainer of the model that the arguments name.

    Args:
        rows: A dataset with the column `prompt`; TRL hands its other columns to the reward function.
        model_args, grpo_args: TRL's `ModelConfig` and `GRPOConfig`.

    Raises:
        UserError: The model can't be loaded, is an adapter or a policy, or TRL refuses the options.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import cached_file
    from trl import GRPOTrainer, get_peft_config, get_quantization_config

    name, revision = model_args.model_name_or_path, model_args.model_revision
    refuse_policy(name, revision=revision)
    with loading("model", name):
        if cached_file(name, "adapter_config.json", revision=revision, _raise_exceptions_for_missing_entries=False):
            raise UserError(f"{name!r} is an adapter; merge it first with recipes/merge_adapter.py, or give its base.")
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=get_quantization_config(model_args),
            use_safetensors=True,
            trust_remote_code=False,
        )
    with library("TRL's trainer can't be made with these options"):
        return GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=grpo_args,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=get_peft_config(model_args),
        )


@contextmanager
def answering(trainer: Any) -> Iterator[tuple[TransformersGenerator, Sampling]]:
    """The model of a trainer as it is now, to be asked, with greedy sampling; afterwards it is in training mode."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    options: dict[str, Any] = {"processing_class": trainer.processing_class, "batch_size": 16}
    generator = TransformersGenerator(trainer.model.name_or_path, model=model, **options)
    yield generator, Sampling(temperature=0.0, top_p=1.0, max_tokens=trainer.args.max_completion_length)
    model.train()


def rewards_of(trainer: Any) -> Mapping[str, float]:
    """The mean reward of the first and of the last quarter of the logged steps."""
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    quarter = max(1, len(rewards) // 4)
    first, last = rewards[:quarter], rewards[-quarter:]
    return {"reward_first": sum(first) / len(first), "reward_last": sum(last) / len(last)}


def save_trained(trainer: Any, card: str) -> None:
    """Save the adapter (or whole model), the tokenizer and a card."""
    trainer.save_model(trainer.args.output_dir)
    if trainer.args.process_index == 0:
        folder = Path(trainer.args.output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)  # A pickle, and nothing reads it.
        (folder / "README.md").write_text(card, encoding="utf-8")
