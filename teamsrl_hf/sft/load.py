"""Loading a fine-tuned model to measure it: in goes a folder or Hub id, out come model, tokenizer and base.

An adapter is loaded as a PEFT model; `disable_adapter()` gives its base.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..loading import loading, refuse_policy
from ..models.local import check_device
from ..publish.lineage import model_lineage, weights_digest
from .template import tokenizer_with_template


def load_finetuned(
    name: str, reference: str | None = None, dtype: str = "float32", device: str = "cpu"
) -> tuple[Any, PreTrainedTokenizerBase, PreTrainedModel | None]:
    """Model, tokenizer and, for a whole model, its reference model, ready for inference.

    Args:
        name: Folder or Hub id of an adapter or of a whole model. A folder `base` in it is its base model.
        reference: Folder or Hub id of the base, if neither the adapter's config nor a folder `base` names it.

    Raises:
        UserError: A model or tokenizer can't be loaded.
    """
    check_device(dtype, device)
    (base, revision), is_adapter = base_of(name, reference), _adapter_base(name) is not None
    refuse_policy(base if is_adapter and base else name)
    with loading("tokenizer", name):
        tokenizer = tokenizer_with_template(AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    loaded: Any = None if base is None else _load(base, dtype, revision)
    if is_adapter:
        from peft import PeftModel

        with loading("adapter", name):
            return PeftModel.from_pretrained(loaded, name).to(device).eval(), tokenizer, None
    model = _load(name, dtype).to(device).eval()
    return model, tokenizer, None if loaded is None else loaded.to(device).eval()


def recorded_training(name: str, reference: str | None = None) -> dict[str, Any] | None:
    """The record of the model's training, checked against its weights and those of the base that is loaded.

    None if there is no record, as for a model from the Hub or from another program.

    Raises:
        UserError: The record describes other weights, or another base.
    """
    known, (base, revision) = model_lineage(name), base_of(name, reference)
    if known and base and weights_digest(base, revision) != known["base"]["weights"]:
        raise UserError(
            f"{base!r} is not the base that {name!r} was trained from, which was {known['base']['name']!r}; "
            "give that one with --reference_model, or train again."
        )
    return known


def base_of(name: str, reference: str | None = None) -> tuple[str | None, str | None]:
    """The base that `load_finetuned` loads, and its revision: `reference`, a folder `base`, or the adapter's base."""
    own = Path(name) / "base"
    return (reference, None) if reference else _adapter_base(name) or (str(own) if own.is_dir() else None, None)


def _adapter_base(name: str) -> tuple[str, str | None] | None:
    """The base model of the adapter `name` and its revision, or None when it is a whole model."""
    from peft import PeftConfig
    from transformers.utils import cached_file

    with loading("model", name):
        if cached_file(name, "adapter_config.json", _raise_exceptions_for_missing_entries=False) is None:
            return None
        own, config = Path(name) / "base", PeftConfig.from_pretrained(name)
        return (str(own), None) if own.is_dir() else (config.base_model_name_or_path, config.revision)


def _load(name: str, dtype: str, revision: str | None = None) -> Any:
    options: dict[str, Any] = {
        "dtype": dtype,
        "revision": "main" if revision is None else revision,
        "use_safetensors": True,
    }
    with loading("model", name):
        return AutoModelForCausalLM.from_pretrained(name, **options, trust_remote_code=False)
