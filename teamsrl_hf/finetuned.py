"""What fine-tuning wrote, loaded for measuring: in goes a folder or Hub id, out come model, tokenizer and base.

An adapter comes as a PEFT model, so that its base is one `disable_adapter()` away.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError
from .lineage import model_lineage, weights_digest
from .sft import CHAT_TEMPLATE, first_line


def load_finetuned(
    name: str, reference: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> tuple[Any, PreTrainedTokenizerBase, PreTrainedModel | None]:
    """Model, tokenizer and, where it has to be loaded apart, the reference model, ready for inference.

    Args:
        name: Folder or Hub id of an adapter or of a whole model. A folder `base` in it is its base model.
        reference: Folder or Hub id of the base, where neither the adapter's config nor a folder `base` tells it.

    Raises:
        UserError: What is named can't be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        if _adapter_base(name) is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(_load(base_of(name, reference), dtype), name)
            return model.to(device).eval(), tokenizer_with_template(tokenizer), None
        model, base = _load(name, dtype).to(device).eval(), base_of(name, reference)
        return model, tokenizer_with_template(tokenizer), base and _load(base, dtype).to(device).eval()
    except OSError as error:
        raise UserError(
            f"Can't load {name!r} (folder or Hub id of a model or adapter): {first_line(error)}"
        ) from error


def recorded_training(name: str, reference: str | None = None) -> dict[str, Any] | None:
    """The record of the model's training, held against its weights and those of the base that `load_finetuned` takes.

    None where there is no record: of a model from the Hub, or one that another program made.

    Raises:
        UserError: The record is of other weights, or of another base.
    """
    known, base = model_lineage(name), base_of(name, reference)
    if known and base and weights_digest(base) != known["base"]["weights"]:
        raise UserError(
            f"{base!r} is not the base that {name!r} was trained from, which was {known['base']['name']!r}; "
            "give that one with --reference_model, or train again."
        )
    return known


def base_of(name: str, reference: str | None = None) -> str | None:
    """The base that `load_finetuned` takes: the given one, else what a folder `base` holds or an adapter names."""
    own = Path(name) / "base"
    return reference or _adapter_base(name) or (str(own) if own.is_dir() else None)


def _adapter_base(name: str) -> str | None:
    """The base model of the adapter `name`, or None when it is a whole model."""
    from peft import PeftConfig
    from transformers.utils import cached_file

    found = cached_file(name, "adapter_config.json", _raise_exceptions_for_missing_entries=False)
    if found is None:
        return None
    own = Path(name) / "base"
    return str(own) if own.is_dir() else PeftConfig.from_pretrained(name).base_model_name_or_path


def _load(name: str, dtype: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True)


def tokenizer_with_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template that fine-tuning gave one without."""
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    return tokenizer
