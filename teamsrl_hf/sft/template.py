"""Chat templates: in go messages and a tokenizer, out come token ids whose answers end as generation expects."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..text.operations import fence

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


def settle_chat_template(
    tokenizer: PreTrainedTokenizerBase, eos_token: str | None = None, chat_template_path: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer with a chat template whose answers end with its end-of-sequence token.

    A tokenizer without a template gets `CHAT_TEMPLATE`. If the template ends answers with another special token, as
    with Qwen's base models, that token becomes the end of sequence: a model that learns one end while generation waits
    for another never stops.

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
    tokenizer = tokenizer_with_template(tokenizer)
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
    tail = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(answer)[2]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = [token for token in tokenizer.tokenize(tail) if token in special | {tokenizer.eos_token}]
    return tokenizer.eos_token if tokenizer.eos_token in found else next(iter(found), None)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    """Token ids of `messages` in the tokenizer's chat template; a control token written in a message stays plain text.

    The tokenizer must recognise the template's own control tokens but not those in the messages, and the template
    returns one string. So those in the messages are masked before rendering and then encoded in their place as plain
    text (`split_special_tokens`).
    """
    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    pattern = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
    mark = fence(*(message["content"] for message in messages))
    found: list[str] = []

    def take_out(match: re.Match) -> str:
        found.append(match[0])
        return f"[{mark}:{len(found) - 1}]"

    masked = [{**message, "content": pattern.sub(take_out, message["content"])} for message in messages]
    text = str(tokenizer.apply_chat_template(masked, add_generation_prompt=add_generation_prompt, tokenize=False))
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
    """How many of the first rows the template renders so that they do not begin with the prompt used at generation.

    A model trained on such rows never saw the prompts that it gets later.
    """
    broken = 0
    for row in dataset.select(range(min(most, len(dataset)))):
        prompt = encode_chat(tokenizer, row["prompt"], add_generation_prompt=True)
        broken += encode_chat(tokenizer, row["prompt"] + row["completion"])[: len(prompt)] != prompt
    return broken


def tokenizer_with_template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer; if it has no chat template, with the one that fine-tuning gives it."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
