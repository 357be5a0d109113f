"""Most for a budget: in go a pilot and a budget, out come how many seeds to evolve, how far, and what to expect.

A chain that may be shorter is the beginning of the longer one, so a single pilot tells what every length and every
`stop_below` would have taken and given: the calls are in its ledger.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...models.budget import Budget
from ...models.ledger import Ledger
from ...runs import hold, peek_run, prepare_run, read_run
from ...types import Example, Seed, State
from ..config import EvolverConfig
from ..evolution import Evolution, value_function
from ..shards import Team
from ..write import Payment
from .intervals import ALL, AMOUNTS, Forecast, forecast
from .pilot import Pilot, Results, alike_seeds, count_rows, drawn, run_pilot
from .table import forecast_table

# What is to be as much as the budget allows, counted for one seed.
TARGETS: dict[str, Callable[[Results], int]] = {
    "rows": count_rows,
    "verified": lambda results: sum(isinstance(one, Example) and bool(one.candidate.verified) for one in results),
    # Seeds with a row, since a seed's further rows repeat its subject.
    "diversity": lambda results: min(1, count_rows(results)),
}
COUNTED = {"rows": "rows", "verified": "verified rows", "diversity": "seeds with a row"}
# Methods whose chain is the same, only shorter, with fewer operations.
_SHORTENED = ("stepwise", "evol_instruct")
DECIDED = ("operations_per_episode", "stop_below")
PILOT = 20  # Seeds.
# Of the intervals whose upper ends have to stay within the budget; each single one holds far more often.
_SAFE = 0.5
_QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Allocation:
    """What a budget is spent on.

    Attributes:
        seeds: How many seeds to evolve, the pilot's included.
        operations_per_episode, stop_below: See `EvolverConfig`.
        expected: What these seeds take and give; its `rows` count the target.
    """

    seeds: int
    operations_per_episode: int
    stop_below: float | None
    expected: Forecast


@dataclass(frozen=True)
class Settled:
    """The seeds to evolve, and what was decided, as run.json records it."""

    seeds: list[Seed]
    record: dict[str, Any]


def settle(
    evolver: Evolution,
    train: Sequence[Seed],
    test: Sequence[Seed],
    folder: str | Path,
    payment: Payment,
    target: str,
    size: int | None = None,
    say: Callable[[str], Any] = print,
) -> Settled:
    """Decide by `allocate`, for the budget of `payment`; a run that has begun in `folder` keeps what was decided.

    Args:
        train, test: The seeds to choose from, and those that are all evolved.
        size: Seeds of the pilot; 20 if None.
        say: Gets what each way gives and what to expect of the best, as two tables.

    Raises:
        UserError: See `allocate`; or several processes are launched, or more seeds are held out than the budget pays.
    """
    if Team.join().size > 1:
        raise UserError("A target takes one process; run it without `accelerate launch`.")
    seeds, args = [*train, *test], evolver.args
    record = ((read_run(folder) or {}).get("arguments") or {}).get("allocation")
    if record is None:
        with hold(folder):
            peek_run(folder, {})
            prepare_run(folder)
            with payment.open(time.time()) as ledger:
                found = allocate(evolver, seeds, size or PILOT, ledger, payment.budget, target)
                priced = bool(ledger.prices)
        say(_table(found, target, len(seeds)))
        say("\n" + forecast_table(found[0].expected, args.method, priced, COUNTED[target]))
        decided, asked = ({name: getattr(one, name) for name in DECIDED} for one in (found[0], args))
        record = {"target": target, "pilot": size or PILOT, "seeds": found[0].seeds, **decided, "asked": asked}
    groups = drawn(list(evolver.groups(seeds)), record["pilot"], args.seed, args.pack_size)
    kept = chosen(train, [seed for group in groups for seed in group], record["seeds"] - len(test))
    if len(kept) + len(test) > record["seeds"]:
        raise UserError(
            f"The budget pays {record['seeds']:,} seeds, but {len(test):,} are held out, which are all evolved, and "
            f"the pilot took {len(kept):,} others; raise the budget, or lower --test_size."
        )
    return Settled(kept, record)


def allocate(
    evolver: Evolution,
    seeds: Sequence[Seed],
    size: int,
    ledger: Ledger,
    budget: Budget,
    target: str = "rows",
    show_progress: bool = True,
) -> list[Allocation]:
    """The best number of seeds for each way to shorten chains, the best way first.

    The upper end of the interval of what a run takes stays within the budget, so that it comes to its end.

    Args:
        size: Seeds of the pilot, whose calls count against the budget and are not bought again.

    Raises:
        UserError: The budget has no limit.
        Stopped: The budget is spent by the pilot, or a model refuses all calls.
    """
    if budget == Budget():
        raise UserError("A target needs a budget; give budget_calls, budget_tokens, or budget_cost and prices.")
    alike = alike_seeds(seeds, evolver.args.dedup_threshold)
    found = []
    for settings in ways(evolver, seeds):
        trial = evolver.with_settings(**settings)
        pilot = run_pilot(trial, seeds, size, ledger, show_progress, TARGETS[target])
        limits = _limits(budget, ledger, pilot)
        found.append(_most_seeds(pilot, trial.args, len(seeds), alike, limits))
    return sorted(found, key=lambda one: -(one.expected.rows.estimate or 0.0))


def ways(evolver: Evolution, seeds: Sequence[Seed]) -> list[dict[str, float | None]]:
    """Settings to try: as given first, then fewer operations, then values below which a chain ends."""
    args = evolver.args
    most = args.operations_per_episode
    found: list[dict[str, float | None]] = [{"operations_per_episode": most, "stop_below": args.stop_below}]
    if args.method not in _SHORTENED:
        return found
    found += [{"operations_per_episode": count, "stop_below": args.stop_below} for count in range(1, most)]
    if args.stop_below is None and (value := value_function(evolver.chooser)):
        values = np.quantile(value([State(seed.text) for seed in seeds]), _QUANTILES)
        found += [{"operations_per_episode": most, "stop_below": round(float(one), 4)} for one in values]
    return found


def chosen(seeds: Sequence[Seed], pilot: Sequence[Seed], count: int) -> list[Seed]:
    """Those of `seeds` that the pilot evolved, and the first others, `count` in all, in their order."""
    evolved = {seed.id for seed in pilot}
    first = [seed.id for seed in seeds if seed.id in evolved]
    others = [seed.id for seed in seeds if seed.id not in evolved]
    kept = {*first, *others[: max(0, count - len(first))]}
    return [seed for seed in seeds if seed.id in kept]


def _limits(budget: Budget, ledger: Ledger, pilot: Pilot) -> list[float | None]:
    """Calls, tokens and money that the pilot and the run may take, given what else the ledger has paid for."""
    taken = [sum(spent[place] for one in pilot.outcomes for spent in one.spent.values()) for place in range(4)]
    calls, prompt, answer, cost = taken
    others = ledger.attempts - calls, ledger.tokens - prompt - answer, ledger.cost - cost
    return [limit and limit - other for limit, other in zip((budget.calls, budget.tokens, budget.cost), others)]


def _most_seeds(
    pilot: Pilot, args: EvolverConfig, seeds: int, alike: int, limits: Sequence[float | None]
) -> Allocation:
    """The most seeds of which all that is taken surely stays within `limits`, in the order of `AMOUNTS`."""
    evolved = sum(outcome.seeds for outcome in pilot.outcomes)
    later = "" if args.answered_in_walk else "expert"

    def expect(count: int, level: float = 0.9) -> Forecast:
        pairs = alike * (count / seeds) ** 2  # As many seeds are alike as there are pairs.
        return forecast(pilot.outcomes, count, level, round(pairs), later)

    def fits(count: int) -> bool:
        taken = expect(count, _SAFE).spent[ALL]
        calls, prompt, answer, cost = (taken[name].high for name in AMOUNTS)
        return all(limit is None or most <= limit for most, limit in zip((calls, prompt + answer, cost), limits))

    low, high = evolved, seeds + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Allocation(low, args.operations_per_episode, args.stop_below, expect(low))


def _table(found: Sequence[Allocation], target: str, seeds: int) -> str:
    """One line for each way to shorten chains, the best first."""
    lines = [f"What the budget gives, of {seeds:,} seeds. The run takes the first line.", ""]
    lines.append(f"{'seeds':>8}{'operations':>12}{'stop below':>12}   {COUNTED[target]}: likely, least, most")
    for one in found:
        rows, stop = one.expected.rows, "-" if one.stop_below is None else f"{one.stop_below:.4g}"
        likely = 0 if rows.estimate is None else rows.estimate
        shown = ", ".join(f"{number:,.0f}" for number in (likely, rows.low, rows.high))
        lines.append(f"{one.seeds:>8,}{one.operations_per_episode:>12}{stop:>12}   {shown}")
    return "\n".join(lines)
