"""Merging: in goes the folder of an adapter, out comes one model that needs no PEFT."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import UserError
from ..loading import loading


def merge_adapter(adapter_dir: str | Path, output_dir: str | Path, dtype: str = "float32") -> Path:
    """Write base model plus adapter as one model that needs no PEFT; returns `output_dir`.

    Args:
        adapter_dir: Folder with a saved adapter and its tokenizer. A folder `base` in it is the base model; else the
            adapter's config names it.
        dtype: Precision to load the base in. It is never loaded quantized: merging into 4-bit weights loses too much.

    Raises:
        UserError: `adapter_dir` holds no adapter in safetensors format, or its base model cannot be loaded.
    """
    from peft import PeftConfig, PeftModel

    adapter_dir = Path(adapter_dir)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter_dir / name).is_file():
            raise UserError(f"No {name} in {str(adapter_dir)!r}; give the folder that the fine-tuning wrote.")
    own = adapter_dir / "base"
    with loading("adapter", adapter_dir):
        config = PeftConfig.from_pretrained(str(adapter_dir))
        base = str(own) if own.is_dir() else config.base_model_name_or_path
        tokenizer = AutoTokenizer.from_pretrained(adapter_dir, trust_remote_code=False)
    with loading("the adapter's base model", base):
        options = {
            "dtype": dtype,
            "revision": "main" if config.revision is None else config.revision,
            "use_safetensors": True,
        }
        model = AutoModelForCausalLM.from_pretrained(base, **options, trust_remote_code=False)
    with loading("adapter", adapter_dir):
        merged = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload()
    # Training may have settled on another end than the base's; generation has to wait for that one.
    merged.config.eos_token_id = merged.generation_config.eos_token_id = tokenizer.eos_token_id
    merged.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return Path(output_dir)
