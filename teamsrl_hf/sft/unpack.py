"""Unpacking: in goes the name of a GGUF file, out comes a folder of safetensors, which fine-tuning and PEFT need."""

from pathlib import Path

from transformers import AutoTokenizer

from ..loading import loading, refuse_policy
from ..models.local import check_gguf, load_gguf
from ..runs import staged


def unpack_gguf(name: str, gguf_file: str, output_dir: str | Path, dtype: str = "auto") -> Path:
    """Write the model of a GGUF file and its tokenizer as a folder of safetensors; returns `output_dir`.

    Args:
        name: Folder or repository that holds the file.
        dtype: Of the weights; "auto" is bfloat16 where this machine computes in it, else float32.

    Raises:
        UserError: gguf is missing, or the file can't be loaded.
    """
    check_gguf()
    refuse_policy(name, gguf_file=gguf_file)
    with loading("model", name):
        tokenizer = AutoTokenizer.from_pretrained(name, gguf_file=gguf_file, trust_remote_code=False)
        model = load_gguf(name, gguf_file, dtype, "cpu")
    model.hf_quantizer = None  # The weights are unpacked, which transformers does not notice.
    del model.config.quantization_config
    with staged(output_dir) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Path(output_dir)
