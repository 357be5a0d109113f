"""Membership-inference audit: in come a model and texts it saw or did not see, out comes how well they are told apart.

Render texts exactly as in training. All scores are higher for likelier members. Epochs, learning rate and capacity
move these figures more than the data does: compare models only where they are equal. Members and non-members must come
from one distribution, so `split_members` makes them, and a classifier that never saw the model checks it.
"""

import hashlib
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..loading import check_tokens
from ..text.features import hashed_vectors

MIN_K = 0.2
# Below this many non-members the interval of a rate at 1 % false positives is about as wide as the rate itself.
NON_MEMBERS_FOR_TPR = 2000
RESAMPLES = 1000
FOLDS = 10
PERMUTATIONS = 199
BLIND_WORDS, BLIND_ROWS = 512, 10_000
ATTACKS = {
    "loss": "loss (Yeom et al. 2018)",
    "zlib": "loss over zlib length (arXiv 2012.07805)",
    "min_k": "Min-K % 20 (arXiv 2310.16789)",
    "min_k_plus_plus": "Min-K %++ 20 (arXiv 2404.02936)",
    "reference": "loss less the reference model's",
}

Row = str | Mapping[str, Any]
Groups = Sequence[Hashable]
Scores = dict[str, np.ndarray]
Weights = Iterable[tuple[np.ndarray, np.ndarray]]


def split_members(groups: Groups, seed: int = 0) -> tuple[list[int], list[int]]:
    """Row numbers of members and of non-members: half the groups each, dealt out by a hash of `seed` and group.

    Rows of one group (the rows evolved from one seed, say) stay together: were they parted, a member's sibling would
    count as unseen.

    Raises:
        UserError: There are fewer than 2 groups.
    """
    ranked = sorted(set(groups), key=lambda group: hashlib.blake2b(f"{seed}:{group}".encode()).digest())
    if len(ranked) < 2:
        raise UserError(f"All {len(groups)} rows belong to one group; a split needs at least 2 groups.")
    members = set(ranked[: len(ranked) // 2])
    inside = [row for row, group in enumerate(groups) if group in members]
    return inside, [row for row, group in enumerate(groups) if group not in members]


def membership_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    batch_size: int = 8,
    max_length: int = 1024,
) -> Scores:
    """Scores of five attacks, each of shape (len(rows),); `reference` is missing when there is nothing to refer to.

    `loss` is minus the mean loss per token (nats), `zlib` divides it by the bytes of the compressed text (arXiv
    2012.07805), `min_k` averages the 20 % least likely tokens (2310.16789), `min_k_plus_plus` does so after
    standardising each over the vocabulary (2404.02936), `reference` is the reference model's loss minus this one's.

    Args:
        rows: Texts, of which all tokens count; or mappings with `prompt` and `completion`, rendered by the tokenizer's
            chat template as in fine-tuning, of which the completion's tokens count.
        reference: A model that has not seen the rows. A PEFT model is its own: the base, with the adapter off.
        max_length: Tokens of a row that are looked at.

    Raises:
        UserError: No rows, or one in which nothing is predicted.
    """
    return _scored(model, tokenizer, rows, reference, batch_size, max_length)[0]


def _scored(model, tokenizer, rows, reference, batch_size=8, max_length=1024) -> tuple[Scores, np.ndarray | None]:
    """Scores of `model`, and the reference's `loss` scores."""
    from peft import PeftModel

    encoded = _encode(tokenizer, rows, max_length)
    highest, longest = max(int(ids.max()) for ids, _ in encoded), max(len(ids) for ids, _ in encoded)
    for reader in (model, *([] if reference is None else [reference])):
        check_tokens(reader.config, highest, longest)
    scores = _score(model, encoded, batch_size)
    scores["zlib"] = scores["loss"] / [
        len(zlib.compress(_learned(row).encode("utf-8", "surrogatepass"))) for row in rows
    ]
    control = None
    with ExitStack() as adapter_off:
        if reference is None and isinstance(model, PeftModel):
            adapter_off.enter_context(model.disable_adapter())
            reference = model
        if reference is not None:
            control = _score(reference, encoded, batch_size)["loss"]
            scores["reference"] = scores["loss"] - control
    return scores, control


def attack(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[Row],
    non_members: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    **options: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores of members and non-members by attack, and under `control` by the loss of the reference model."""
    inside, inside_control = _scored(model, tokenizer, members, reference, **options)
    outside, outside_control = _scored(model, tokenizer, non_members, reference, **options)
    pairs = {name: (inside[name], outside[name]) for name in ATTACKS if name in inside}
    if inside_control is not None:
        pairs["control"] = (inside_control, outside_control)
    return pairs


def audit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[Row],
    non_members: Sequence[Row],
    *,
    reference: PreTrainedModel | None = None,
    groups: tuple[Groups, Groups] | None = None,
    seed: int = 0,
    **options: int,
) -> dict[str, Any]:
    """AUC of every attack with its 95 % bootstrap interval, and whether the split allows any conclusion.

    Without `reference` (see `membership_scores`, which takes `options`) leakage is understated.

    Args:
        groups: What each member and each non-member belongs to, where rows hang together; intervals then resample
            groups, and the blind check never trains on a row's sibling.

    Returns:
        As `report`.
    """
    pairs = attack(model, tokenizer, members, non_members, reference=reference, **options)
    return report(pairs, blind_check(members, non_members, groups, seed), groups, seed)


def report(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    blind: Mapping[str, Any],
    groups: tuple[Groups, Groups] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What the scores of `attack` say, given a `blind_check` of the same rows.

    Returns:
        `attacks`: name -> `auc`, `interval` and, from 2,000 non-members, `tpr_at_1_percent_fpr` with `tpr_interval`;
        `control`: the same for the reference model's loss, which must not tell members apart, or None; `blind`;
        `split_ok`: whether the blind check's p-value is at least .05. Where it is false, members and non-members
        differ by themselves and the attacks' figures mean nothing; one fair split in twenty is flagged by chance.
        `conclusion`: a sentence; members are said to be found only where an attack's interval clears .5 after
        correcting for the number of attacks.
    """
    measured = {name: _measured(*scores, groups, seed) for name, scores in pairs.items()}
    control, _ = measured.pop("control", (None, None))
    level = 1 - 0.05 / len(measured)
    sure = [name for name, (_, drawn) in measured.items() if _quantiles(drawn, level)[0] > 0.5]
    found = {
        "members": len(pairs["loss"][0]),
        "non_members": len(pairs["loss"][1]),
        "attacks": {name: figures for name, (figures, _) in measured.items()},
        "control": control,
        "blind": dict(blind),
        "split_ok": blind["p_value"] >= 0.05,
    }
    return found | {"conclusion": _conclusion(found, sure)}


def _conclusion(found: Mapping[str, Any], sure: Sequence[str]) -> str:
    if not found["split_ok"]:
        return (
            "No conclusion: words and lengths alone tell members from non-members "
            f"(AUC {found['blind']['auc']:.2f}, by chance up to {found['blind']['by_chance']:.2f}), so the two are "
            "not of one distribution and the attacks' figures mean nothing."
        )
    if sure:
        best = max(sure, key=lambda name: found["attacks"][name]["auc"])
        return f"Members can be told from non-members: best attack `{best}`, {_figure(found['attacks'][best])}."
    return (
        f"No attack told {found['members']} members from {found['non_members']} non-members. "
        "That is no proof of privacy: stronger attacks and more rows may."
    )


def _figure(measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    return f"AUC {measured['auc']:.2f}, 95 % interval {low:.2f} to {high:.2f}"


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
        raise UserError(f"{len(non_members)} non-members cannot show a rate of {fpr}; give more, or a rate in (0, 1).")
    return float((members > non_members[passing]).mean())


def roc_curve(members: Sequence[float], non_members: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores pass together."""
    members, non_members = np.sort(_sample(members)), np.sort(_sample(non_members))
    thresholds = np.unique(np.concatenate([members, non_members]))[::-1]
    passing = [1 - np.searchsorted(ordered, thresholds, "left") / len(ordered) for ordered in (non_members, members)]
    fpr, tpr = (np.concatenate([[0.0], rates]) for rates in passing)
    return fpr, tpr


def blind_check(
    members: Sequence[Row], non_members: Sequence[Row], groups: tuple[Groups, Groups] | None = None, seed: int = 0
) -> dict[str, Any]:
    """What members and non-members give away without any model: a classifier on words and lengths.

    How far its AUC strays by chance depends on how alike the texts of a group and of a field are, so that a bootstrap
    would be too narrow; the classifier is therefore fitted again to shuffled labels.

    Returns:
        `auc`; `by_chance`: the AUC that 19 in 20 shuffles stay below; `p_value`: share of shuffles that reach `auc`.
    """
    labels, scores = _blind(members, non_members, groups, seed, PERMUTATIONS)
    found = [auc(score[label > 0], score[label < 0]) for score, label in zip(scores, labels)]
    reached = sum(value >= found[0] for value in found)  # The true labels are one of the shuffles.
    return {"auc": found[0], "by_chance": float(np.quantile(found[1:], 0.95)), "p_value": reached / len(found)}


def blind_scores(
    members: Sequence[Row], non_members: Sequence[Row], seed: int = 0, groups: tuple[Groups, Groups] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of members and non-members by ridge regression on words and length, each by folds it is not in."""
    labels, scores = _blind(members, non_members, groups, seed, 0)
    return scores[0][labels[0] > 0], scores[0][labels[0] < 0]


def _blind(members, non_members, groups, seed: int, permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores, each (1 + permutations, N): the true labels first, then shuffled ones."""
    groups = groups or (range(len(members)), range(len(non_members)))
    fewest = min(len(set(group)) for group in groups)
    if fewest < FOLDS:
        raise UserError(
            f"The blind check needs {FOLDS} groups of members and as many of non-members; one side has {fewest}."
        )
    rng = np.random.default_rng(seed)
    kept = [_some_rows(group, rng) for group in groups]
    texts = [_whole(side[row]) for side, rows in zip((members, non_members), kept) for row in rows]
    # Each side is dealt out on its own: uneven folds push a cross-validated AUC below .5.
    parts = [_folds([group[row] for row in rows], rng) for group, rows in zip(groups, kept)]
    fold = np.concatenate([part for part, _ in parts])
    group = np.concatenate([parts[0][1], parts[1][1] + parts[0][1].max() + 1])
    truth = np.repeat([1.0, -1.0], [len(rows) for rows in kept])
    labels = np.stack([truth, *(_shuffled(truth, fold, group, rng) for _ in range(permutations))])
    features = np.concatenate([hashed_vectors(texts, BLIND_WORDS), _lengths(texts)], axis=1).astype(np.float64)
    return labels, _ridge(features, labels, fold)


def _ridge(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Scores (P, N) for labels (P, N): each row's by a ridge regression on the folds it is not in."""
    scores = np.empty_like(labels)
    for held in range(FOLDS):
        x, mean = features[fold != held], features[fold != held].mean(axis=0)
        x = x - mean
        y = labels[:, fold != held].T
        if len(x) < x.shape[1]:  # The same weights by the smaller of two systems.
            weights = x.T @ np.linalg.solve(x @ x.T + np.eye(len(x)), y)
        else:
            weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
        scores[:, fold == held] = ((features[fold == held] - mean) @ weights).T
    return scores


def _shuffled(labels: np.ndarray, fold: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels dealt out anew to the groups of each fold, so that folds keep their shares."""
    numbers, first = np.unique(group, return_index=True)
    of_group = labels[first].copy()
    for held in range(FOLDS):
        inside = np.flatnonzero(fold[first] == held)
        of_group[inside] = rng.permutation(of_group[inside])
    return of_group[np.searchsorted(numbers, group)]


def _some_rows(group: Groups, rng: np.random.Generator) -> list[int]:
    """All rows, or as many as the check can bear, drawn by chance."""
    return sorted(rng.permutation(len(group))[: BLIND_ROWS // 2].tolist())


def _folds(group: Groups, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fold of each row and number of its group."""
    distinct = {entry: number for number, entry in enumerate(dict.fromkeys(group))}
    numbers = np.array([distinct[entry] for entry in group])
    return (rng.permutation(len(distinct)) % FOLDS)[numbers], numbers


def _lengths(texts: Sequence[str]) -> np.ndarray:
    """Standardised logarithm of the lengths, which rows of length 1 no longer show; (len(texts), 1)."""
    lengths = np.log1p([[len(text)] for text in texts])
    return (lengths - lengths.mean()) / max(lengths.std(), 1e-9)


def _whole(row: Row) -> str:
    """All text of a row."""
    return row if isinstance(row, str) else "\n".join(m["content"] for m in [*row["prompt"], *row["completion"]])


def _learned(row: Row) -> str:
    """The text of a row whose tokens count."""
    return row if isinstance(row, str) else "\n".join(message["content"] for message in row["completion"])


def _encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int
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
    from ..sft.data import encode_chat

    prompt = encode_chat(tokenizer, row["prompt"], add_generation_prompt=True)
    ids = encode_chat(tokenizer, [*row["prompt"], *row["completion"]])
    return ids, max(1, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids))))


@torch.inference_mode()
def _score(model: PreTrainedModel, encoded: list[tuple[torch.Tensor, int]], batch_size: int) -> Scores:
    """The attacks that need one model and tokens, higher for likelier members; each of shape (len(encoded),)."""
    was_training, rows = model.training, [None] * len(encoded)
    model.eval()
    # Rows of like length together: less padding.
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row][0]))
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        ids = [encoded[row][0] for row in batch]
        tokens = pad_sequence(ids, batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
        logits = model(input_ids=tokens, attention_mask=mask).logits
        for i, row in enumerate(batch):
            start, end = encoded[row][1], len(ids[i])
            rows[row] = _score_row(logits[i, start - 1 : end - 1].float(), tokens[i, start:end])
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
        raise UserError(f"Scores of shape {scores.shape} given; need one or more finite numbers in a row.")
    return scores


def _measured(
    members: np.ndarray, non_members: np.ndarray, groups: tuple[Groups, Groups] | None, seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """AUC, its interval and what else can be told of one attack; and the resampled AUCs."""
    drawn = _resampled_auc(members, non_members, _weights(members, non_members, groups, seed))
    found = {"auc": auc(members, non_members), "interval": _quantiles(drawn)}
    if len(non_members) >= NON_MEMBERS_FOR_TPR:
        found["tpr_at_1_percent_fpr"] = tpr_at_fpr(members, non_members)
        found["tpr_interval"] = _quantiles(
            _resampled_tpr(members, non_members, _weights(members, non_members, groups, seed))
        )
    return found, drawn


def _quantiles(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weights(members, non_members, groups, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each bootstrap resample of groups, how often each row of either side stands in it."""
    rng = np.random.default_rng(seed)
    groups = groups or (range(len(members)), range(len(non_members)))
    numbers = []
    for group in groups:
        distinct = {entry: number for number, entry in enumerate(dict.fromkeys(group))}
        numbers.append(np.array([distinct[entry] for entry in group]))
    sizes = [number.max() + 1 for number in numbers]
    for _ in range(RESAMPLES):
        drawn = [np.bincount(rng.integers(size, size=size), minlength=size) for size in sizes]
        yield drawn[0][numbers[0]], drawn[1][numbers[1]]


def _resampled_auc(members: np.ndarray, non_members: np.ndarray, weights: Weights) -> np.ndarray:
    """AUC of each resample, (R,)."""
    order = np.argsort(non_members)
    below, not_above = (np.searchsorted(non_members[order], members, side) for side in ("left", "right"))
    drawn = []
    for our, their in weights:
        reached = np.concatenate([[0], np.cumsum(their[order])])
        drawn.append(our @ (reached[below] + reached[not_above]) / 2 / (our.sum() * their.sum()))
    return np.array(drawn)


def _resampled_tpr(members: np.ndarray, non_members: np.ndarray, weights: Weights, fpr: float = 0.01) -> np.ndarray:
    """True positive rate of each resample at the threshold that `fpr` of its non-members pass, (R,)."""
    order = np.argsort(-non_members)
    drawn = []
    for our, their in weights:
        passing = np.cumsum(their[order])
        threshold = non_members[order[np.searchsorted(passing, fpr * passing[-1] + 1e-9, "right")]]
        drawn.append(our[members > threshold].sum() / our.sum())
    return np.array(drawn)


def roc_plot(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], path: str | Path) -> Path:
    """Draw the ROC curves of all attacks, and of what must not tell members apart, as a PNG; returns `path`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The ROC plot needs matplotlib: pip install 'teamsrl-hf[evaluation]'") from error
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, scores in pairs.items():
        axes.plot(*roc_curve(*scores), linestyle=":" if name == "control" else "-", label=f"{name} {auc(*scores):.2f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.legend(title="AUC", loc="lower right")
    # Without the library's version in it, the same scores give the same file.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return Path(path)


def audit_section(found: Mapping[str, Any], plot: str | None = None) -> str:
    """The card's section on an audit.

    Where the split is not sound the attacks' figures are left out: they would be read as a claim.

    Args:
        found: What `report` returns; and `membership`, "recorded" only where the rows were held against the record of
            the training, and `weights`, the hash of the model's weights.
        plot: File name of the ROC curves.
    """
    lines = ["## Privacy audit", "", found["conclusion"], "", _whose_rows(found), ""]
    shown = found["attacks"] if found["split_ok"] else {}
    lines += ["| | AUC | 95 % interval | TPR at 1 % FPR |", "|---|---|---|---|"]
    lines += [_line(ATTACKS[name], measured) for name, measured in shown.items()]
    lines += [_line("control: loss of the reference model", found["control"])] if found["control"] else []
    blind = found["blind"]
    lines += [
        "",
        "Blind check of the split: a classifier on words and lengths, which never saw the model, has an AUC of "
        f"{blind['auc']:.3f} (by chance up to {blind['by_chance']:.3f}, p = {blind['p_value']:.3f}).",
    ]
    if found["non_members"] < NON_MEMBERS_FOR_TPR:
        lines += ["", f"TPR at 1 % FPR is not told: it takes {NON_MEMBERS_FOR_TPR:,} non-members."]
    if "reference" not in found["attacks"]:
        lines += ["", "No reference model was at hand, so leakage is understated."]
    if plot and found["split_ok"]:
        lines += ["", f"![ROC curves of the attacks]({plot})"]
    if found.get("weights"):
        lines += ["", f"Measured on the weights with SHA-256 `{found['weights']}`."]
    return "\n".join([*lines, "", "Epochs, learning rate and capacity move these figures more than the data does."])


def _whose_rows(found: Mapping[str, Any]) -> str:
    """What is known of the two sides, and what an AUC is."""
    members, others = found["members"], found["non_members"]
    if found.get("membership") == "recorded":
        told = f"By its record, the model was trained on the {members} members and not on the {others} non-members."
    else:
        told = (
            "Unknown: nothing recorded says which rows this model was trained on. That "
            f"{members} rows are members and {others} are not is the word of whoever ran the audit."
        )
    return f"{told} AUC is the chance that a member scores above a non-member; .5 is chance."


def _line(name: str, measured: Mapping[str, Any]) -> str:
    low, high = measured["interval"]
    rate = "–"
    if "tpr_at_1_percent_fpr" in measured:
        ends = measured["tpr_interval"]
        rate = f"{measured['tpr_at_1_percent_fpr']:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"| {name} | {measured['auc']:.3f} | {low:.3f} to {high:.3f} | {rate} |"
