"""Parts of fine-tuning: in go prompt/completion rows, out come token ids, a tiny model, a card, a merged model."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from .cards import PAPER_TAGS, front_matter, render
from .operations import fence

ROLES = ("system", "user", "assistant")

# Role marks are single tokens in the tiny model and plain text in any other; both end every turn with their own EOS.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def check_sft_dataset(dataset: Dataset) -> Dataset:
    """The `prompt` and `completion` columns of `dataset`, all others dropped: provenance must not reach the trainer.

    Raises:
        ValueError: A column is missing, there are no rows, a cell is no list of messages with a known role and a text,
            or a completion does not end with the assistant.
    """
    for column in ("prompt", "completion"):
        if column not in dataset.column_names:
            raise ValueError(
                f"The dataset has no column {column!r}, only {', '.join(dataset.column_names)}; "
                "rename the columns, or pick another one with dataset_config."
            )
    dataset = dataset.select_columns(["prompt", "completion"])
    if not len(dataset):
        raise ValueError("The dataset has no rows; training needs at least two.")
    for number, row in enumerate(dataset):
        for column, messages in row.items():
            _check_messages(messages, f"Row {number}, column {column!r}")
        if row["completion"][-1]["role"] != "assistant":
            raise ValueError(f"Row {number}, column 'completion', must end with a message of role 'assistant'.")
    return dataset


def _check_messages(messages: object, where: str) -> None:
    wanted = "wanted a list of {'role': ..., 'content': ...} messages with text in both"
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}, holds {_kind(messages)}; {wanted}.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"{where}, holds a message without text content; {wanted}.")
        if message.get("role") not in ROLES:
            raise ValueError(f"{where}, has role {message.get('role')!r}; known roles are {', '.join(ROLES)}.")


def _kind(value: object) -> str:
    return "an empty list" if isinstance(value, list) else type(value).__name__


def hold_out(dataset: Dataset, seed: int, share: float = 0.05) -> tuple[Dataset, Dataset]:
    """Train and test rows: a `share` of the rows (at least one), picked by a hash of `seed` and row number.

    Raises:
        ValueError: There are fewer than two rows.
    """
    if len(dataset) < 2:
        raise ValueError(f"The dataset has {len(dataset)} row and no test split; holding rows out needs at least two.")
    ranked = sorted(range(len(dataset)), key=lambda row: hashlib.blake2b(f"{seed}:{row}".encode()).digest())
    count = max(1, round(share * len(dataset)))
    return dataset.select(sorted(ranked[count:])), dataset.select(sorted(ranked[:count]))


def chat_texts(dataset: Dataset) -> Iterator[str]:
    """The text of every message of a checked dataset, in order."""
    for row in dataset:
        for message in row["prompt"] + row["completion"]:
            yield message["content"]


def build_tiny_model(texts: Iterable[str], output_dir: str | Path, seed: int = 0) -> Path:
    """Write a randomly initialised Llama of about 0.3 million parameters and a tokenizer trained on `texts`.

    Returns:
        `output_dir`, which `from_pretrained` loads. The same texts and seed give the same files.
    """
    tokenizer = _train_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Not AutoModel.from_config: once ZeRO-3 arguments exist, that would partition the weights and save none.
        LlamaForCausalLM(config).save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return Path(output_dir)


def _train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be encoded, so no unknown token is needed."""
    roles = [f"<|{role}|>" for role in ROLES]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>", *roles],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=roles,
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
    )


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    """Token ids of `messages` in the tokenizer's chat template; a control token written in a message stays plain text.

    The template's own control tokens have to be recognised, those in the messages must not be, and the template yields
    one string. So the latter are taken out before rendering, and spelled out (`split_special_tokens`) at their place.
    """
    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    pattern = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
    mark = fence(*(message["content"] for message in messages))
    found: list[str] = []

    def take_out(match: re.Match) -> str:
        found.append(match[0])
        return f"[{mark}:{len(found) - 1}]"

    masked = [{**message, "content": pattern.sub(take_out, message["content"])} for message in messages]
    text = tokenizer.apply_chat_template(masked, add_generation_prompt=add_generation_prompt, tokenize=False)
    ids: list[int] = []
    for position, piece in enumerate(re.split(rf"\[{mark}:(\d+)\]", text) if found else [text]):
        plain = position % 2 == 1
        piece = found[int(piece)] if plain else piece
        ids += tokenizer(piece, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
    return ids


def tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, num_proc: int | None = None) -> Dataset:
    """A checked dataset as `input_ids` and `completion_mask`, 1 from the first token that the prompt does not fix."""

    def encode(row: dict) -> dict:
        prompt = encode_chat(tokenizer, row["prompt"], add_generation_prompt=True)
        ids = encode_chat(tokenizer, row["prompt"] + row["completion"])
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids)))
        return {"input_ids": ids, "completion_mask": [0] * shared + [1] * (len(ids) - shared)}

    return dataset.map(encode, remove_columns=dataset.column_names, num_proc=num_proc, desc="Tokenizing")


def guard_cpu_4bit(model: torch.nn.Module) -> int:
    """Keep the 4-bit layers of a model on the CPU trainable after an evaluation; returns how many were guarded.

    On processors with AVX512-BF16, bitsandbytes repacks such a layer in its first forward in evaluation mode for an
    operation without gradients; training then goes on with wrong ones. Call this before the first forward.
    """
    layers = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def merge_adapter(adapter_dir: str | Path, output_dir: str | Path, dtype: str = "float32") -> Path:
    """Write base model plus adapter as one model that needs no PEFT; returns `output_dir`.

    Args:
        adapter_dir: Folder with a saved adapter and its tokenizer. A folder `base` in it is the base model; else the
            adapter's config names it.
        dtype: Precision to load the base in. It is never loaded quantized: merging into 4-bit weights loses too much.

    Raises:
        ValueError: `adapter_dir` holds no adapter in safetensors format, or its base model cannot be loaded.
    """
    from peft import PeftConfig, PeftModel

    adapter_dir = Path(adapter_dir)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter_dir / name).is_file():
            raise ValueError(f"No {name} in {str(adapter_dir)!r}; give the folder that the fine-tuning wrote.")
    own = adapter_dir / "base"
    base = str(own) if own.is_dir() else PeftConfig.from_pretrained(adapter_dir).base_model_name_or_path
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"Cannot load the adapter's base model {base!r}: {first_line(error)}") from error
    PeftModel.from_pretrained(model, adapter_dir).merge_and_unload().save_pretrained(output_dir)
    AutoTokenizer.from_pretrained(adapter_dir).save_pretrained(output_dir)
    return Path(output_dir)


def settle_chat_template(
    tokenizer: PreTrainedTokenizerBase, eos_token: str | None = None, chat_template_path: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer with the given end of sequence and template; one without a template gets `CHAT_TEMPLATE`.

    Raises:
        ValueError: The path is no .jinja file, or the tokenizer has no end-of-sequence token.
    """
    if eos_token:
        tokenizer.eos_token = eos_token
    if chat_template_path:
        if not (chat_template_path.endswith(".jinja") and Path(chat_template_path).is_file()):
            raise ValueError(f"chat_template_path {chat_template_path!r} is no .jinja file; give the path of one.")
        tokenizer.chat_template = Path(chat_template_path).read_text(encoding="utf-8")
    if tokenizer.eos_token is None:
        raise ValueError("The tokenizer has no end-of-sequence token; name one of its tokens with eos_token.")
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    return tokenizer


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Trainable and all parameters, before any quantization or sharding."""
    if hasattr(model, "get_nb_trainable_parameters"):  # PEFT's, which unpacks 4-bit weights in its count
        return model.get_nb_trainable_parameters()
    # Under ZeRO-3 a process holds a part of each parameter; `ds_numel` is the whole's size.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def sft_card(summary: Mapping[str, Any], script_args: Any, model_args: Any, sft_args: Any) -> str:
    """The card of a fine-tuned model. Folders of this machine are named by their last part, and never in the YAML.

    Args:
        summary: What the recipe returns.
        script_args: Attributes `dataset_name`, `tiny_model`.
        model_args: TRL's `ModelConfig`.
        sft_args: TRL's `SFTConfig`.
    """
    base, dataset = model_args.model_name_or_path, script_args.dataset_name
    public = {} if Path(base).exists() else {"base_model": base}
    if public and model_args.use_peft:
        public["base_model_relation"] = "adapter"
    if not Path(dataset).exists():
        public["datasets"] = [dataset]
    meta = {
        "library_name": "peft" if model_args.use_peft else "transformers",
        "pipeline_tag": "text-generation",
        **public,
        "tags": ["sft", "trl", *(["lora"] if model_args.use_peft else []), *PAPER_TAGS],
    }
    return render(
        "sft_card.md",
        meta=front_matter(meta),
        summary=summary,
        base=Path(base).name if Path(base).exists() else base,
        dataset=Path(dataset).name if Path(dataset).exists() else dataset,
        tiny=script_args.tiny_model,
        adapter=model_args.use_peft,
        settings=_settings(model_args, sft_args),
        hardware=_hardware(sft_args),
        versions={name: version(name) for name in ("torch", "transformers", "trl", "peft", "datasets")},
    )


def _settings(model_args: Any, sft_args: Any) -> dict[str, Any]:
    """What somebody else needs to repeat the run."""
    batch = sft_args.per_device_train_batch_size * sft_args.gradient_accumulation_steps * sft_args.world_size
    settings = {
        "learning_rate": sft_args.learning_rate,
        "lr_scheduler_type": str(sft_args.lr_scheduler_type.value),
        "batch size over all processes": batch,
        "max_length": sft_args.max_length,
        "completion_only_loss": sft_args.completion_only_loss,
        "precision": "bf16" if sft_args.bf16 else "fp16" if sft_args.fp16 else "fp32",
        "seed": sft_args.seed,
    }
    if model_args.load_in_4bit or model_args.load_in_8bit:
        settings["quantized base"] = model_args.bnb_4bit_quant_type if model_args.load_in_4bit else "int8"
    if model_args.use_peft:
        names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save")
        settings |= {name: getattr(model_args, name) for name in names if getattr(model_args, name) is not None}
    return settings


def _hardware(sft_args: Any) -> str:
    """Processes and what each of them ran on."""
    on_gpu = sft_args.device.type == "cuda"
    device = torch.cuda.get_device_name(sft_args.device) if on_gpu else sft_args.device.type.upper()
    return f"{sft_args.world_size} × {device}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
