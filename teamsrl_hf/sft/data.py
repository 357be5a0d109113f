"""Parts of fine-tuning: in go prompt/completion rows, out come token ids, a tiny model, a merged model."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from datasets import Dataset, Features, Value, concatenate_datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..errors import UserError
from ..loading import loading
from ..text.operations import fence

ROLES = ("system", "user", "assistant")
_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
_FEATURES = Features({"prompt": _MESSAGES, "completion": _MESSAGES})

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

    A dataset with `messages` and without `completion` becomes one: what its last message says is the completion.

    Raises:
        UserError: A column is missing, there are no rows, a cell is no list of messages with a known role and a text,
            or a completion does not end with the assistant.
    """
    if "messages" in dataset.column_names and "completion" not in dataset.column_names:
        dataset = _split_conversations(dataset)
    for column in ("prompt", "completion"):
        if column not in dataset.column_names:
            raise UserError(
                f"The dataset has no column {column!r}, only {', '.join(dataset.column_names)}; "
                "rename the columns, or pick another one with dataset_config."
            )
    dataset = dataset.select_columns(["prompt", "completion"])
    if not len(dataset):
        raise UserError("The dataset has no rows; training needs at least two.")
    for number, row in enumerate(dataset):
        for column, messages in row.items():
            _check_messages(messages, f"Row {number}, column {column!r}")
        if row["completion"][-1]["role"] != "assistant":
            raise UserError(f"Row {number}, column 'completion', must end with a message of role 'assistant'.")
    return dataset if dataset.features == _FEATURES else dataset.map(_only_text, features=_FEATURES)


def _split_conversations(dataset: Dataset) -> Dataset:
    for number, row in enumerate(dataset.select_columns(["messages"])):
        _check_messages(row["messages"], f"Row {number}, column 'messages'")
        if len(row["messages"]) < 2:
            raise UserError(f"Row {number}, column 'messages', holds one message; wanted a question and its answer.")
    return dataset.map(
        lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]},
        remove_columns=dataset.column_names,
    )


def _only_text(row: dict) -> dict:
    """Messages without further keys, so that datasets of several makers fit together."""
    return {column: [{"role": m["role"], "content": m["content"]} for m in row[column]] for column in row}


def mix_datasets(datasets: Sequence[Dataset], fractions: Sequence[float | None] = ()) -> Dataset:
    """Checked datasets, one after the other; with `fractions`, the first rows of each, in such shares of the whole.

    The mixture is as large as the shares allow without repeating a row, as TRL's `get_dataset` has it.

    Raises:
        UserError: Some fractions are given and some are not, or they are not positive.
    """
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return concatenate_datasets(list(datasets))
    if len(given) < len(datasets) or min(given) <= 0:
        raise UserError(
            f"The fractions of the mixture are {list(fractions)}; give each dataset a positive one, or none."
        )
    shares = [fraction / sum(given) for fraction in given]
    total = min(len(dataset) / share for dataset, share in zip(datasets, shares))
    return concatenate_datasets(
        [dataset.select(range(round(share * total))) for dataset, share in zip(datasets, shares)]
    )


def _check_messages(messages: object, where: str) -> None:
    wanted = "wanted a list of {'role': ..., 'content': ...} messages with text in both"
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}, holds {_kind(messages)}; {wanted}.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UserError(f"{where}, holds a message without text content; {wanted}.")
        if message.get("role") not in ROLES:
            raise UserError(f"{where}, has role {message.get('role')!r}; known roles are {', '.join(ROLES)}.")


def _kind(value: object) -> str:
    return "an empty list" if isinstance(value, list) else type(value).__name__


def hold_out(dataset: Dataset, seed: int, share: float = 0.05) -> tuple[Dataset, Dataset]:
    """Train and test rows: a `share` of the rows (at least one), picked by a hash of `seed` and row number.

    Raises:
        UserError: There are fewer than two rows.
    """
    if len(dataset) < 2:
        raise UserError(f"The dataset has {len(dataset)} row and no test split; holding rows out needs at least two.")
    ranked = sorted(range(len(dataset)), key=lambda row: hashlib.blake2b(f"{seed}:{row}".encode()).digest())
    count = max(1, round(share * len(dataset)))
    return dataset.select(sorted(ranked[count:])), dataset.select(sorted(ranked[:count]))


def chat_texts(dataset: Dataset) -> Iterator[str]:
    """The text of every message of a checked dataset, in order."""
    for row in dataset:
        for message in row["prompt"] + row["completion"]:
            yield message["content"]


def build_tiny_model(
    texts: Iterable[str], output_dir: str | Path, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None
) -> Path:
    """Write a randomly initialised Llama of about 0.3 million parameters and a tokenizer trained on `texts`.

    Args:
        tokenizer: What `train_tokenizer` made of the same texts, where it is at hand.

    Returns:
        `output_dir`, which `from_pretrained` loads. The same texts and seed give the same files.
    """
    tokenizer = train_tokenizer(texts) if tokenizer is None else tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Not AutoModel.from_config: once ZeRO-3 arguments exist, that would partition the weights and save none.
        LlamaForCausalLM(tiny_config(tokenizer)).save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return Path(output_dir)


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of the tiny model."""
    return LlamaConfig(
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


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer of byte-level BPE: every text can be encoded, so no unknown token is needed."""
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


def check_lengths(tokens: Dataset, max_length: int | None, drop: bool = False) -> tuple[Dataset, int, int]:
    """The tokenized rows to train on, how many of them lose their end at `max_length`, and how many were left out.

    A row that loses its end teaches no end of an answer; one whose prompt fills `max_length` teaches nothing. With
    `drop`, both are left out.

    Raises:
        UserError: A prompt fills `max_length` and `drop` is not set, or no row remains.
    """
    if max_length is None:
        return tokens, 0, 0
    prompts = [mask.index(1) if 1 in mask else len(mask) for mask in tokens["completion_mask"]]
    lengths = [len(ids) for ids in tokens["input_ids"]]
    long = [i for i, length in enumerate(lengths) if length > max_length]
    filled = sum(length >= max_length for length in prompts)
    if drop and len(long) < len(lengths):
        keep = sorted({*range(len(lengths))} - {*long})
        return (tokens.select(keep) if long else tokens), 0, len(long)
    if filled or drop:
        raise UserError(
            f"max_length = {max_length} tokens is too short: prompts alone fill it in {filled} of {len(lengths)} rows "
            f"(the longest prompt has {max(prompts)}), and {len(long)} rows would be cut (the longest has "
            f"{max(lengths)}); raise it{'' if drop else ', or leave long rows out with long_rows: drop'}."
        )
    return tokens, len(long), 0


def count_broken_prompts(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, most: int = 200) -> int:
    """How many of the first rows the template renders so that the prompt at generation is no beginning of the row.

    A model trained on such rows never saw what it is asked later.
    """
    broken = 0
    for row in dataset.select(range(min(most, len(dataset)))):
        prompt = encode_chat(tokenizer, row["prompt"], add_generation_prompt=True)
        broken += encode_chat(tokenizer, row["prompt"] + row["completion"])[: len(prompt)] != prompt
    return broken


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
        config = PeftConfig.from_pretrained(adapter_dir)
        base = str(own) if own.is_dir() else config.base_model_name_or_path
        tokenizer = AutoTokenizer.from_pretrained(adapter_dir, trust_remote_code=False)
    with loading("the adapter's base model", base):
        options = {"dtype": dtype, "revision": config.revision or "main", "use_safetensors": True}
        model = AutoModelForCausalLM.from_pretrained(base, **options, trust_remote_code=False)
    with loading("adapter", adapter_dir):
        merged = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload()
    # Training may have settled on another end than the base's; generation has to wait for that one.
    merged.config.eos_token_id = merged.generation_config.eos_token_id = tokenizer.eos_token_id
    merged.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return Path(output_dir)


def settle_chat_template(
    tokenizer: PreTrainedTokenizerBase, eos_token: str | None = None, chat_template_path: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer with a chat template whose answers end with its end-of-sequence token.

    One without a template gets `CHAT_TEMPLATE`. Where the template ends answers with another special token (as with
    Qwen's base models), that becomes the end of sequence: a model that learns one end while generation waits for
    another never stops.

    Raises:
        UserError: The path is no .jinja file, the tokenizer lacks `eos_token` or has no end-of-sequence token, or
            answers end with no special token, or not with the `eos_token` asked for.
    """
    if eos_token and eos_token not in tokenizer.get_vocab():
        raise UserError(f"eos_token {eos_token!r} is no token of this tokenizer; name one of its tokens.")
    if eos_token:
        tokenizer.eos_token = eos_token
    if chat_template_path:
        if not (chat_template_path.endswith(".jinja") and Path(chat_template_path).is_file()):
            raise UserError(f"chat_template_path {chat_template_path!r} is no .jinja file; give the path of one.")
        tokenizer.chat_template = Path(chat_template_path).read_text(encoding="utf-8")
    if tokenizer.eos_token is None:
        raise UserError("The tokenizer has no end-of-sequence token; name one of its tokens with eos_token.")
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    end = answer_end(tokenizer)
    if end is None:
        raise UserError(
            "The chat template ends answers with no special token, so the model would never learn to stop; "
            "give another with chat_template_path."
        )
    if eos_token and end != eos_token:
        raise UserError(f"eos_token is {eos_token!r}, but the chat template ends answers with {end!r}; give that one.")
    tokenizer.eos_token = end
    return tokenizer


def answer_end(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that the chat template puts after an answer; its end of sequence if that is among several."""
    answer = "An answer."
    turns = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": answer}]
    tail = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(answer)[2]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = [token for token in tokenizer.tokenize(tail) if token in special | {tokenizer.eos_token}]
    return tokenizer.eos_token if tokenizer.eos_token in found else next(iter(found), None)


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Trainable and all parameters, before any quantization or sharding."""
    if hasattr(model, "get_nb_trainable_parameters"):  # PEFT's, which unpacks 4-bit weights in its count
        return model.get_nb_trainable_parameters()
    # Under ZeRO-3 a process holds a part of each parameter; `ds_numel` is the whole's size.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)
