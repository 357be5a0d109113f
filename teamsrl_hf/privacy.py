"""Membership-inference audit: in come a model and texts it saw or did not see, out comes how well they are told apart.

Render texts exactly as in training. All scores are higher for likelier members. Epochs, learning rate and capacity
move these figures more than the data does: compare models only where they are equal.
"""

import zlib
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .evaluation import bootstrap_interval, hashed_embeddings

MIN_K = 0.2
# Below this many non-members the interval of a rate at 1 % false positives is about as wide as the rate itself.
NON_MEMBERS_FOR_TPR = 2000
FOLDS = 10


def membership_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    reference: PreTrainedModel | None = None,
    batch_size: int = 8,
    max_length: int = 1024,
) -> dict[str, np.ndarray]:
    """Scores of five attacks, each of shape (len(texts),); `reference` is missing when there is nothing to refer to.

    `loss` is minus the mean loss per token (nats), `zlib` divides it by the bytes of the compressed text (arXiv
    2012.07805), `min_k` averages the 20 % least likely tokens (2310.16789), `min_k_plus_plus` does so after
    standardising each over the vocabulary (2404.02936), `reference` is the reference model's loss minus this one's.

    Args:
        reference: A model that has not seen the texts. A PEFT model is its own: the base, with the adapter off.
        max_length: Tokens of a text that are looked at.

    Raises:
        ValueError: No texts, or one of fewer than two tokens.
    """
    from peft import PeftModel

    ids = _encode(tokenizer, texts, max_length)
    scores = _score(model, ids, batch_size)
    scores["zlib"] = scores["loss"] / [len(zlib.compress(text.encode("utf-8", "surrogatepass"))) for text in texts]
    with ExitStack() as adapter_off:
        if reference is None and isinstance(model, PeftModel):
            adapter_off.enter_context(model.disable_adapter())
            reference = model
        if reference is not None:
            scores["reference"] = scores["loss"] - _score(reference, ids, batch_size)["loss"]
    return scores


def audit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[str],
    non_members: Sequence[str],
    *,
    reference: PreTrainedModel | None = None,
    seed: int = 0,
    **options,
) -> dict:
    """AUC of every attack with its 95 % bootstrap interval, and whether the split allows any conclusion.

    Without `reference` (see `membership_scores`, which takes `options`) leakage is understated. The highest of several
    attacks is chosen after the fact, so quote it with the others.

    Returns:
        `attacks`: name -> `auc`, `interval` and, from 2,000 non-members, `tpr_at_1_percent_fpr`; `blind`: `auc` and
        `interval` of a bag of words that never saw the model; `split_ok`: whether that interval holds .5. Where it is
        false, members and non-members differ by themselves and the attacks' figures mean nothing. About one fair
        split in twenty is flagged by chance.
    """
    options["reference"] = reference
    inside = membership_scores(model, tokenizer, members, **options)
    outside = membership_scores(model, tokenizer, non_members, **options)
    blind = _measured(*blind_scores(members, non_members, seed), seed)
    low, high = blind["interval"]
    return {
        "members": len(members),
        "non_members": len(non_members),
        "attacks": {name: _measured(inside[name], outside[name], seed) for name in sorted(inside)},
        "blind": blind,
        "split_ok": low <= 0.5 <= high,
    }


def auc(members: Sequence[float], non_members: Sequence[float]) -> float:
    """Chance that a member scores above a non-member, ties counting half."""
    members, non_members = _sample(members), _sample(non_members)
    ordered = np.sort(non_members)
    below, not_above = (np.searchsorted(ordered, members, side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(ordered))


def tpr_at_fpr(members: Sequence[float], non_members: Sequence[float], fpr: float = 0.01) -> float:
    """Share of members above the lowest threshold that at most `fpr` of the non-members pass."""
    members, non_members = _sample(members), np.sort(_sample(non_members))[::-1]
    passing = int(fpr * len(non_members) + 1e-9)
    if not 0 < fpr < 1 or passing < 1:
        raise ValueError(
            f"{len(non_members)} non-members cannot show a rate of {fpr}; give more, or a rate in (0, 1)."
        )
    return float((members > non_members[passing]).mean())


def blind_scores(members: Sequence[str], non_members: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of members and non-members by ridge regression on their words, each text scored by folds it is not in."""
    fewest = min(len(members), len(non_members))
    if fewest < FOLDS:
        raise ValueError(f"The blind check needs {FOLDS} members and as many non-members; one group has {fewest}.")
    features = hashed_embeddings([*members, *non_members]).astype(np.float64)
    labels = np.repeat([1.0, -1.0], [len(members), len(non_members)])
    rng = np.random.default_rng(seed)
    # Each group is dealt out on its own: uneven folds push a cross-validated AUC below .5.
    fold = np.concatenate([rng.permutation(len(group)) % FOLDS for group in (members, non_members)])
    scores = np.empty(len(labels))
    for held in range(FOLDS):
        x, y = features[fold != held], labels[fold != held]
        x, y, unseen = x - x.mean(axis=0), y - y.mean(), features[fold == held] - x.mean(axis=0)
        scores[fold == held] = unseen @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    return scores[: len(members)], scores[len(members) :]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[torch.Tensor]:
    if not texts:
        raise ValueError("Got no texts; give at least one.")
    ids = [torch.tensor(tokenizer(text, truncation=True, max_length=max_length)["input_ids"]) for text in texts]
    short = [i for i, tokens in enumerate(ids) if len(tokens) < 2]
    if short:
        raise ValueError(f"Text {short[0]} has fewer than two tokens, so nothing in it is predicted; drop it.")
    return ids


@torch.inference_mode()
def _score(model: PreTrainedModel, ids: list[torch.Tensor], batch_size: int) -> dict[str, np.ndarray]:
    """The attacks that need one model and tokens, higher for likelier members; each of shape (len(ids),)."""
    was_training, rows = model.training, []
    model.eval()
    for start in range(0, len(ids), batch_size):
        batch = ids[start : start + batch_size]
        tokens = pad_sequence(batch, batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in batch], batch_first=True).to(model.device)
        logits = model(input_ids=tokens, attention_mask=mask).logits
        rows += [_score_row(logits[i, : len(row) - 1].float(), tokens[i, 1 : len(row)]) for i, row in enumerate(batch)]
    model.train(was_training)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


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


def _sample(scores: Sequence[float]) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"Scores of shape {scores.shape} given; need one or more finite numbers in a row.")
    return scores


def _measured(members: np.ndarray, non_members: np.ndarray, seed: int) -> dict:
    found = {"auc": auc(members, non_members), "interval": bootstrap_interval((members, non_members), auc, seed=seed)}
    if len(non_members) >= NON_MEMBERS_FOR_TPR:
        found["tpr_at_1_percent_fpr"] = tpr_at_fpr(members, non_members)
        found["tpr_interval"] = bootstrap_interval((members, non_members), tpr_at_fpr, seed=seed)
    return found
