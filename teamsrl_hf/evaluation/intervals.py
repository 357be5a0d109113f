"""Confidence intervals: in go samples, counts or a measure of a set, out come a lower and an upper end.

scipy computes them where it has the method. Each function imports it, since scipy.stats takes half a second to import.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from ..errors import UserError

Interval = tuple[float, float]
# Half of fewer texts is too small a sample to estimate a spread from.
TEXTS_FOR_INTERVAL = 20
# Numbers that a bootstrap holds in memory at a time: 80 MB.
BOOTSTRAP_NUMBERS = 10_000_000


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of two or more values and half the width of its 95 % interval, by Student's t.

    >>> mean_interval([1.0, 2.0, 3.0])[0], round(mean_interval([1.0, 2.0, 3.0])[1], 3)
    (2.0, 2.484)
    """
    from scipy.stats import t

    quantile = float(t.ppf(0.975, len(values) - 1))
    return statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def half_sample_interval(
    size: int,
    statistic: Callable[[np.ndarray], float],
    seed: int = 0,
    resamples: int = 50,
    level: float = 0.95,
) -> Interval | None:
    """Interval of a measure of repetition, such as the Vendi score.

    A bootstrap would bias such a measure, since its resamples repeat texts. This is the delete-half jackknife (Shao
    and Wu 1989), which scipy does not have: the measure varies over random halves, drawn without repetition, as it
    varies over samples of the full size. The measure depends on the size, so the spread is scaled by the measure of
    all items over the mean measure of the halves. The lower end is at least 0, as no such measure is negative.

    Args:
        size: Number of items.
        statistic: Maps indices of items (int, distinct) to a number.

    Returns:
        The interval, or None for fewer than 20 items, which are too few to estimate a spread from.
    """
    _check_level(level)
    if size < TEXTS_FOR_INTERVAL:
        return None
    rng = np.random.default_rng(seed)
    whole = statistic(np.arange(size))
    halves = [statistic(np.sort(rng.permutation(size)[: size // 2])) for _ in range(resamples)]
    scale = whole / np.mean(halves) if np.mean(halves) else 1.0
    half_width = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(halves, ddof=1) * scale)
    return max(0.0, float(whole - half_width)), float(whole + half_width)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray | tuple[np.ndarray, ...],
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    paired: bool = False,
) -> Interval:
    """Percentile bootstrap interval of `statistic`.

    Do not use it for measures of repetition (Vendi score, distinct-n): a resample repeats texts, which lowers them.

    Args:
        values: One sample, numbers or rows; or a tuple of arrays, each of which becomes one argument of `statistic`.
        statistic: Maps arrays to a number; with a parameter `axis`, all resamples are passed in one call.
        level: Share of intervals that contain the true value, between 0 and 1.
        paired: Whether the arrays of a tuple are resampled together, by row, instead of each on its own.

    Raises:
        UserError: A sample is empty, or `level` is not between 0 and 1.
    """
    from scipy.stats import bootstrap

    _check_level(level)
    samples = [np.asarray(sample) for sample in (values if isinstance(values, tuple) else (values,))]
    largest = max(len(at_least(sample, "values")) for sample in samples)
    if largest == 1:  # scipy needs two values; every resample of one value is that value.
        only = float(statistic(*samples))
        return only, only
    if any(sample.ndim > 1 for sample in samples):  # scipy would resample numbers: resample the rows' indices.
        statistic, samples = partial(_of_rows, statistic, samples), [np.arange(len(sample)) for sample in samples]
    found = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=min(resamples, max(1, BOOTSTRAP_NUMBERS // largest)),
        confidence_level=level,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _of_rows(statistic: Callable[..., Any], samples: Sequence[np.ndarray], *rows: np.ndarray) -> Any:
    return statistic(*(sample[chosen] for sample, chosen in zip(samples, rows)))


def wilson_interval(wins: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of the rate behind `wins` out of `n`; it stays within [0, 1] and holds near both ends."""
    from scipy.stats import binomtest

    _check_level(level)
    if not 0 <= wins <= n or n < 1:
        raise UserError(f"{wins} wins out of {n} is no rate; give 0 <= wins <= n and n of at least 1.")
    found = binomtest(int(wins), int(n)).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def at_least(items: Any, name: str, least: int = 1) -> Any:
    """The items; UserError where there are fewer than `least`."""
    if len(items) < least:
        raise UserError(f"Got {len(items)} {name}; this measure needs at least {least}.")
    return items


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1, such as 0.95.")
