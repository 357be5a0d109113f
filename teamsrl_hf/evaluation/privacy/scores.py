"""Attack scores: in go a model and rows, out comes for each row how likely it was trained on; higher is likelier.

Render rows exactly as in training.
"""

import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import UserError
from ...loading import check_tokens

MIN_K = 0.2
ATTACKS = {
    "loss": "loss (Yeom et al. 2018)",
    "zlib": "loss over zlib length (arXiv 2012.07805)",
    "min_k": "Min-K % 20 (arXiv 2310.16789)",
    "min_k_plus_plus": "Min-K %++ 20 (arXiv 2404.02936)",
    "reference": "loss less the reference model's",
}

Row = str | Mapping[str, Any]
Scores = dict[str, np.ndarray]


def membership_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    batch_size: int = 8,
    max_length: int | None = 1024,
) -> Scores:
    """Scores of five attacks, each of shape (len(rows),); without a reference model, `reference` is missing.

    `loss` is minus the mean loss per token (nats), `zlib` divides it by the bytes of the compressed text (arXiv
    2012.07805), `min_k` averages the 20 % least likely tokens (2310.16789), `min_k_plus_plus` does so after
    standardising each over the vocabulary (2404.02936), `reference` is the reference model's loss minus this one's.

    Args:
        rows: Texts, of which all tokens count; or mappings with `prompt` and `completion`, rendered by the tokenizer's
            chat template as in fine-tuning, of which the completion's tokens count.
        reference: A model that has not seen the rows. By default the base of a PEFT model, with the adapter off.
        max_length: Tokens of a row to score; None for all.

    Raises:
        UserError: No rows, or one in which nothing is predicted.
    """
    return _scored(model, tokenizer, rows, reference, batch_size, max_length)[0]


def attack(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[Row],
    non_members: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    batch_size: int = 8,
    max_length: int | None = 1024,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores of members and non-members by attack, and under `control` by the loss of the reference model.

    Arguments are those of `membership_scores`.
    """
    inside, inside_control = _scored(model, tokenizer, members, reference, batch_size, max_length)
    outside, outside_control = _scored(model, tokenizer, non_members, reference, batch_size, max_length)
    pairs = {name: (inside[name], outside[name]) for name in ATTACKS if name in inside}
    if inside_control is not None and outside_control is not None:
        pairs["control"] = (inside_control, outside_control)
    return pairs


def whole_text(row: Row) -> str:
    """All text of a row."""
    return row if isinstance(row, str) else "\n".join(m["content"] for m in [*row["prompt"], *row["completion"]])


def _scored(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    reference: Any,
    batch_size: int,
    max_length: int | None,
) -> tuple[Scores, np.ndarray | None]:
    """Scores of `model`, and the reference's `loss` scores."""
    from peft import PeftModel

    encoded = _encode(tokenizer, rows, max_length)
    highest, longest = max(int(ids.max()) for ids, _ in encoded), max(len(ids) for ids, _ in encoded)
    for reader in (model, *([] if reference is None else [reference])):
        check_tokens(reader.config, highest, longest)
    scores = _score(model, encoded, batch_size)
    sizes = [len(zlib.compress(_learned_text(row).encode("utf-8", "surrogatepass"))) for row in rows]
    scores["zlib"] = scores["loss"] / np.array(sizes)
    control = None
    with ExitStack() as adapter_off:
        if reference is None and isinstance(model, PeftModel):
            adapter_off.enter_context(model.disable_adapter())
            reference = model
        if reference is not None:
            control = _score(reference, encoded, batch_size)["loss"]
            scores["reference"] = scores["loss"] - control
    return scores, control


def _learned_text(row: Row) -> str:
    """The text of a row whose tokens count."""
    return row if isinstance(row, str) else "\n".join(message["content"] for message in row["completion"])


def _encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int | None
) -> list[tuple[torch.Tensor, int]]:
    """Token ids of each row, and the place of the first token that counts (the very first is never predicted)."""
    if not rows:
        raise UserError("Got no texts; give at least one.")
    encoded = []
    for number, row in enumerate(rows):
        ids, start = _encode_row(tokenizer, row)
        ids = ids[:max_length]
        if len(ids) <= start:
            raise UserError(
                f"Text {number} has fewer than two tokens, or none that counts within max_length = {max_length}, so "
                "nothing in it is predicted; drop it."
            )
        encoded.append((torch.tensor(ids), start))
    return encoded


def _encode_row(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[list[int], int]:
    if isinstance(row, str):
        return tokenizer(row)["input_ids"], 1
    from ...sft.template import encode_chat

    prompt = encode_chat(tokenizer, row["prompt"], add_generation_prompt=True)
    ids = encode_chat(tokenizer, [*row["prompt"], *row["completion"]])
    return ids, max(1, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids))))


@torch.inference_mode()
def _score(model: Any, encoded: Sequence[tuple[torch.Tensor, int]], batch_size: int) -> Scores:
    """The attacks that need one model and tokens; each of shape (len(encoded),)."""
    was_training = model.training
    scored: dict[int, dict[str, float]] = {}
    model.eval()
    # Batches of rows of similar length need less padding.
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row][0]))
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        ids = [encoded[row][0] for row in batch]
        tokens = pad_sequence(ids, batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
        logits = model(input_ids=tokens, attention_mask=mask).logits
        for i, row in enumerate(batch):
            start, end = encoded[row][1], len(ids[i])
            scored[row] = _score_row(logits[i, start - 1 : end - 1].float(), tokens[i, start:end])
    model.train(was_training)
    return {name: np.array([scored[row][name] for row in range(len(encoded))]) for name in scored[0]}


def _score_row(logits: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """`logits` of shape (T, V) and the T tokens that followed."""
    logprobs = logits.log_softmax(-1)
    of_tokens = logprobs.gather(-1, tokens[:, None])[:, 0]
    mean = (logprobs.exp() * logprobs).nansum(-1)
    variance = (logprobs.exp() * logprobs.square()).nansum(-1) - mean.square()
    standardised = (of_tokens - mean) / variance.clamp(min=1e-6).sqrt()
    least = max(1, int(MIN_K * len(tokens)))
    return {
        "loss": of_tokens.mean().item(),
        "min_k": of_tokens.sort().values[:least].mean().item(),
        "min_k_plus_plus": standardised.sort().values[:least].mean().item(),
    }
