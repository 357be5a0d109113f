"""How well scores separate members from non-members: in go scores of both, out come AUC and rates."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from ...errors import UserError

RESAMPLES = 1000

Sample = Sequence[float] | np.ndarray
Weights = Iterable[tuple[np.ndarray, np.ndarray]]


def auc(members: Sample, non_members: Sample) -> float:
    """Chance that a member scores above a non-member, ties counting half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(members, non_members)))


def roc_curve(members: Sample, non_members: Sample) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores pass together."""
    from sklearn import metrics

    fpr, tpr, _ = metrics.roc_curve(*_labelled(members, non_members), drop_intermediate=False)
    return fpr, tpr


def tpr_at_fpr(members: Sample, non_members: Sample, fpr: float = 0.01) -> float:
    """Share of members above the lowest threshold that at most `fpr` of the non-members pass.

    Raises:
        UserError: There are too few non-members for such a rate.
    """
    if not 0 < fpr < 1 or int(fpr * len(non_members) + 1e-9) < 1:
        raise UserError(f"{len(non_members)} non-members cannot show a rate of {fpr}; give more, or a rate in (0, 1).")
    reached, rates = roc_curve(members, non_members)
    return float(rates[reached <= fpr + 1e-9].max())


def _labelled(members: Sample, non_members: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Labels (1 for a member) and scores, as scikit-learn takes them."""
    ours, theirs = _sample(members), _sample(non_members)
    return np.repeat([1, 0], [len(ours), len(theirs)]), np.concatenate([ours, theirs])


def _sample(scores: Sample) -> np.ndarray:
    array = np.asarray(scores, float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise UserError(f"Scores of shape {array.shape} given; need one or more finite numbers in a row.")
    return array


def quantile_interval(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a bootstrapped figure."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# scipy's bootstrap resamples rows, not groups of rows. With `sample_weight`, scikit-learn gives the same AUCs,
# but sorts the scores each time: 2.2 s for 1,000 resamples of 2,000 + 2,000 rows, against .02 s here.
def group_weights(
    members: np.ndarray,
    non_members: np.ndarray,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]] | None,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each bootstrap resample of groups, how many times it holds each row of either side."""
    rng = np.random.default_rng(seed)
    numbers = []
    for group in (range(len(members)), range(len(non_members))) if groups is None else groups:
        distinct = {entry: number for number, entry in enumerate(dict.fromkeys(group))}
        numbers.append(np.array([distinct[entry] for entry in group]))
    sizes = [number.max() + 1 for number in numbers]
    for _ in range(RESAMPLES):
        drawn = [np.bincount(rng.integers(size, size=size), minlength=size) for size in sizes]
        yield drawn[0][numbers[0]], drawn[1][numbers[1]]


def resampled_auc(members: np.ndarray, non_members: np.ndarray, weights: Weights) -> np.ndarray:
    """AUC of each resample, (R,)."""
    order = np.argsort(non_members)
    below = np.searchsorted(non_members[order], members, "left")
    not_above = np.searchsorted(non_members[order], members, "right")
    drawn = []
    for our, their in weights:
        reached = np.concatenate([[0], np.cumsum(their[order])])
        drawn.append(our @ (reached[below] + reached[not_above]) / 2 / (our.sum() * their.sum()))
    return np.array(drawn)


def resampled_tpr(members: np.ndarray, non_members: np.ndarray, weights: Weights, fpr: float = 0.01) -> np.ndarray:
    """True positive rate of each resample at the threshold that `fpr` of its non-members pass, (R,)."""
    order = np.argsort(-non_members)
    drawn = []
    for our, their in weights:
        passing = np.cumsum(their[order])
        threshold = non_members[order[np.searchsorted(passing, fpr * passing[-1] + 1e-9, "right")]]
        drawn.append(our[members > threshold].sum() / our.sum())
    return np.array(drawn)
