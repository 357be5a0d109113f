"""Members and non-members of one distribution: in go rows and their groups, out come two halves, or how they differ.

An audit means something only if the two sides differ in nothing but the training. `split_members` draws them at
random; `blind_check` tests two given sides with a classifier that never sees the model.
"""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ...errors import UserError
from ...text.features import hashed_vectors
from .rates import auc
from .scores import Row, whole_text

FOLDS = 10
PERMUTATIONS = 199
BLIND_WORDS, BLIND_ROWS = 512, 10_000

Groups = Sequence[Hashable]


def split_members(groups: Groups, seed: int = 0) -> tuple[list[int], list[int]]:
    """Row numbers of members and of non-members: half the groups each, assigned by a hash of `seed` and group.

    Rows of one group, such as the rows evolved from one seed, stay on one side. Otherwise the model would have seen a
    sibling of a row that counts as unseen.

    Raises:
        UserError: There are fewer than 2 groups.
    """
    ranked = sorted(set(groups), key=lambda group: hashlib.blake2b(f"{seed}:{group}".encode()).digest())
    if len(ranked) < 2:
        raise UserError(f"All {len(groups)} rows belong to one group; a split needs at least 2 groups.")
    members = set(ranked[: len(ranked) // 2])
    inside = [row for row, group in enumerate(groups) if group in members]
    return inside, [row for row, group in enumerate(groups) if group not in members]


def blind_check(
    members: Sequence[Row], non_members: Sequence[Row], groups: tuple[Groups, Groups] | None = None, seed: int = 0
) -> dict[str, Any]:
    """How well a classifier on words and lengths separates members from non-members without any model.

    Its AUC varies by chance, the more so the more alike the texts of a group and of a field are. A bootstrap would be
    too narrow, so the classifier is also fitted to shuffled labels. scikit-learn's `permutation_test_score` shuffles
    labels within groups, which does nothing where a group lies on one side, so the shuffles here are of whole groups.

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
    """Cross-validated scores of members and non-members by ridge regression on words and length."""
    labels, scores = _blind(members, non_members, groups, seed, 0)
    return scores[0][labels[0] > 0], scores[0][labels[0] < 0]


def _blind(
    members: Sequence[Row],
    non_members: Sequence[Row],
    groups: tuple[Groups, Groups] | None,
    seed: int,
    permutations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores, each (1 + permutations, N): the true labels first, then shuffled ones."""
    sides: tuple[Groups, Groups] = (range(len(members)), range(len(non_members))) if groups is None else groups
    fewest = min(len(set(side)) for side in sides)
    if fewest < FOLDS:
        raise UserError(
            f"The blind check needs {FOLDS} groups of members and as many of non-members; one side has {fewest}."
        )
    rng = np.random.default_rng(seed)
    kept = [_some_rows(side, rng) for side in sides]
    texts = [whole_text(side[row]) for side, rows in zip((members, non_members), kept) for row in rows]
    # Each side is divided into folds on its own: uneven folds push a cross-validated AUC below .5.
    parts = [_folds([side[row] for row in rows], rng) for side, rows in zip(sides, kept)]
    fold = np.concatenate([part for part, _ in parts])
    group = np.concatenate([parts[0][1], parts[1][1] + parts[0][1].max() + 1])
    truth = np.repeat([1.0, -1.0], [len(rows) for rows in kept])
    labels = np.stack([truth, *(_shuffled(truth, fold, group, rng) for _ in range(permutations))])
    features = np.concatenate([hashed_vectors(texts, BLIND_WORDS), _lengths(texts)], axis=1).astype(np.float64)
    return labels, _ridge(features, labels, fold)


def _ridge(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Scores (P, N) for labels (P, N): each row's by a ridge regression on the folds it is not in."""
    from sklearn.linear_model import Ridge

    scores = np.empty_like(labels)
    for held in range(FOLDS):
        mean = features[fold != held].mean(axis=0)
        # Without an intercept: one per fold would shift the folds' scores against each other.
        ridge = Ridge(alpha=1.0, fit_intercept=False).fit(features[fold != held] - mean, labels[:, fold != held].T)
        scores[:, fold == held] = ridge.predict(features[fold == held] - mean).reshape(-1, len(labels)).T
    return scores


def _shuffled(labels: np.ndarray, fold: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels permuted among the groups of each fold, so that folds keep their shares."""
    numbers, first = np.unique(group, return_index=True)
    of_group = labels[first].copy()
    for held in range(FOLDS):
        inside = np.flatnonzero(fold[first] == held)
        of_group[inside] = rng.permutation(of_group[inside])
    return of_group[np.searchsorted(numbers, group)]


def _some_rows(group: Groups, rng: np.random.Generator) -> list[int]:
    """All rows, or a random sample of them: the time for the check grows with their number."""
    return sorted(rng.permutation(len(group))[: BLIND_ROWS // 2].tolist())


def _folds(group: Groups, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fold of each row and number of its group."""
    distinct = {entry: number for number, entry in enumerate(dict.fromkeys(group))}
    numbers = np.array([distinct[entry] for entry in group])
    return (rng.permutation(len(distinct)) % FOLDS)[numbers], numbers


def _lengths(texts: Sequence[str]) -> np.ndarray:
    """Standardised logarithm of the lengths, which vectors of length 1 do not show; (len(texts), 1)."""
    lengths = np.log1p([[len(text)] for text in texts])
    return (lengths - lengths.mean()) / max(lengths.std(), 1e-9)
