"""From a pilot to all seeds: in go the outcomes of some seeds, out come intervals of what all will take and give.

The seeds of the pilot are drawn at random, so those left are like them. The sum over the seeds left is predicted by
Student's t: its spread is that of the sum itself and that of the pilot's mean. A pilot in which all seeds are alike
does not show that all seeds are, so each spread counts as if one more unit had differed by one call or row.

Near-duplicates become more with the number of rows, since each row is compared with all before it. If a pair of rows
is near-duplicate with probability q, then of a candidates ln(1 + q a) / q stay. The pilot's near-duplicates give an
interval for q; where there are none, the seeds themselves do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import UserError

AMOUNTS = ("calls", "prompt tokens", "answer tokens", "cost")
ALL = "all"  # Stands for the sum over the roles.
Spent = tuple[float, float, float, float]  # In the order of `AMOUNTS`.
NOTHING: Spent = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Outcome:
    """What a unit of the pilot, one seed or several that share calls, took and gave; `spent` is by role."""

    seeds: int
    rows: int
    near_duplicates: int
    spent: Mapping[str, Spent]


@dataclass(frozen=True)
class Range:
    """An interval; `estimate` is the likeliest value in it, None where nothing is known but bounds."""

    low: float
    high: float
    estimate: float | None = None

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def whole(self) -> "Range":
        """As whole numbers, rounded outwards."""
        middle = None if self.estimate is None else round(self.estimate)
        return Range(math.floor(self.low + 1e-9), math.ceil(self.high - 1e-9), middle)


@dataclass(frozen=True)
class Forecast:
    """What a run over `seeds` takes and gives.

    Attributes:
        seeds: How many there are.
        pilot: How many of them were evolved; 0: the ranges are bounds, in which every run lies.
        level: Share of forecasts in which all ranges hold.
        rows: Rows of the dataset.
        spent: By role, and for `ALL` of them, the range of each of `AMOUNTS`, the pilot included. Money is in the
            currency of the prices.
    """

    seeds: int
    pilot: int
    level: float
    rows: Range
    spent: Mapping[str, Mapping[str, Range]]


def forecast(
    outcomes: Sequence[Outcome], seeds: int, level: float = 0.9, alike: int = 0, answered_later: str = ""
) -> Forecast:
    """What a run over `seeds` takes and gives, from the outcomes of those of its seeds that the pilot drew.

    Args:
        outcomes: The units of the pilot.
        level: Share of forecasts in which all ranges hold. Each single one holds more often.
        alike: Seeds that are near-duplicates of another seed; they tell how common near-duplicates are among all.
        answered_later: Role whose answers are bought after near-duplicates have been removed, if any.

    Raises:
        UserError: There are fewer than two units, although seeds are left; or `level` is not between 0 and 1.
    """
    left = seeds - sum(outcome.seeds for outcome in outcomes)
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1, such as 0.9.")
    if len(outcomes) < 2 and left:
        raise UserError(f"A pilot of {len(outcomes)} unit shows no spread; evolve at least two.")
    roles = sorted({role for outcome in outcomes for role in outcome.spent})
    # By Bonferroni, over rows and three amounts of each role and of all; costs follow from these.
    each = 1 - (1 - level) / (1 + 3 * (len(roles) + 1))
    sizes = [outcome.seeds for outcome in outcomes]
    rows = total([outcome.rows for outcome in outcomes], sizes, left, 1.0, each)
    kept, lost = _kept(outcomes, seeds, alike, each), {}
    if answered_later and left:
        lost = {answered_later: rows.low * (1 - kept.low)}
    spent = {role: _spent(outcomes, [role], left, each, lost.get(role, 0.0)) for role in roles}
    spent[ALL] = _spent(outcomes, roles, left, each, sum(lost.values()))
    estimate = None if rows.estimate is None or kept.estimate is None else rows.estimate * kept.estimate
    rows = Range(rows.low * kept.low, rows.high * kept.high, estimate) if left else rows
    return Forecast(seeds, seeds - left, level, rows.whole, spent)


def total(values: Sequence[float], sizes: Sequence[int], left: int, step: float, level: float) -> Range:
    """The sum of `values`, those of units of `sizes` seeds, and of what `left` further seeds will add to it.

    Args:
        step: By how much one more unit is taken to have differed.
        level: Share of such intervals that hold the sum.
    """
    known, units = sum(values), len(values)
    if not left:
        return Range(known, known, known)
    from scipy.stats import t

    rate, size = known / sum(sizes), sum(sizes) / units
    squares = sum((value - rate * seeds) ** 2 for value, seeds in zip(values, sizes, strict=True)) + step**2
    more = left / size
    spread = math.sqrt(squares / (units - 1) * more * (1 + more / units))
    half, expected = float(t.ppf((1 + level) / 2, units - 1)) * spread, rate * left
    return Range(known + max(0.0, expected - half), known + expected + half, known + expected)


def _spent(
    outcomes: Sequence[Outcome], roles: Sequence[str], left: int, level: float, lost: float
) -> dict[str, Range]:
    """The ranges of `AMOUNTS`, summed over `roles`; `lost` calls may be spared by near-duplicates."""
    sizes = [outcome.seeds for outcome in outcomes]
    ranges: dict[str, Range] = {}
    for place, name in enumerate(AMOUNTS):
        values = [sum(outcome.spent.get(role, NOTHING)[place] for role in roles) for outcome in outcomes]
        calls = sum(outcome.spent.get(role, NOTHING)[0] for outcome in outcomes for role in roles)
        step = sum(values) / calls if calls else 0.0
        found = total(values, sizes, left, step, level)
        found = Range(max(sum(values), found.low - lost * step), found.high, found.estimate)
        ranges[name] = found if name == "cost" else found.whole
    return ranges


def _kept(outcomes: Sequence[Outcome], seeds: int, alike: int, level: float) -> Range:
    """The share of the pilot's rows, scaled to all seeds, that stays when near-duplicates of all seeds are removed."""
    found = sum(outcome.near_duplicates for outcome in outcomes)
    candidates = found + sum(outcome.rows for outcome in outcomes)
    if not candidates:
        return Range(1.0, 1.0, 1.0)
    from scipy.stats import chi2

    scale = seeds / sum(outcome.seeds for outcome in outcomes)
    pairs = candidates**2 / 2
    of_seeds = 2 * (alike + 1) / seeds**2
    low = float(chi2.ppf((1 - level) / 2, 2 * found)) / 2 / pairs if found else 0.0
    high = float(chi2.ppf((1 + level) / 2, 2 * found + 2)) / 2 / pairs if found else 0.0

    def share(q: float) -> float:
        return _share_kept(q * candidates * scale) / _share_kept(q * candidates)

    return Range(share(max(high, of_seeds)), share(low), share(found / pairs))


def _share_kept(meetings: float) -> float:
    """Share of candidates that stay, where each would meet so many near-duplicates if none were removed.

    >>> _share_kept(0.0), round(_share_kept(1.0), 3)
    (1.0, 0.693)
    """
    return math.log1p(meetings) / meetings if meetings > 1e-9 else 1.0
