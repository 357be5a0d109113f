"""A pilot: in go an evolver, its seeds and the run's ledger, out come the outcomes of some seeds, drawn at random.

The calls are those that the run itself makes for these seeds, so the run finds them in its ledger.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...environment.rollout import uniform
from ...models.base import Completion, Generator, Request, Wrapper
from ...models.ledger import Ledger, request_key
from ...publish.counts import DatasetStatistics
from ...types import Example, Reason, Rejection, Seed
from ..candidates import CHAIN
from ..dedup import NearDuplicates
from ..evolution import ROLES, Evolution
from ..progress import Watch, progress_bar
from ..shards import consume
from .intervals import NOTHING, Forecast, Outcome, Spent, forecast

LEAST_UNITS = 2
Results = Sequence[Example | Rejection]


def count_rows(results: Results) -> int:
    """Rows among the results of a seed."""
    return sum(isinstance(result, Example) for result in results)


@dataclass(frozen=True)
class Pilot:
    """What a pilot found.

    Attributes:
        outcomes: What its units took and gave.
        statistics: Counts of its rows and rejections.
    """

    outcomes: Sequence[Outcome]
    statistics: DatasetStatistics


@dataclass
class Meter:
    """What calls take, by seed and role. A call that the ledger would answer from an earlier one takes nothing.

    A call belongs to the seed whose chain makes it. Seeds that share one have equal parts of it.
    """

    ledger: Ledger
    taken: dict[str, dict[str, Spent]] = field(default_factory=lambda: defaultdict(dict))
    _seen: set[bytes] = field(default_factory=set)

    def add(self, key: bytes, role: str) -> None:
        """Count a call."""
        if key in self._seen:
            return
        self._seen.add(key)
        owners, taken = CHAIN.get(), self.ledger.spent_on(key)
        for owner in owners:
            before = self.taken[owner].get(role, NOTHING)
            self.taken[owner][role] = _sum(before, [amount / len(owners) for amount in taken])


class _Metered(Wrapper):
    """A model whose calls a meter counts."""

    def __init__(self, generator: Generator, meter: Meter):
        super().__init__(generator)
        self.meter = meter

    async def __call__(self, request: Request) -> Completion:
        request = self.as_asked(request)
        completion = await self.generator(request)
        self.meter.add(request_key(request, self.model, self.answer_options(request)), request.role)
        return completion


def run_pilot(
    evolver: Evolution,
    seeds: Sequence[Seed],
    size: int,
    ledger: Ledger,
    show_progress: bool = True,
    counted: Callable[[Results], int] = count_rows,
) -> Pilot:
    """Evolve `size` of the seeds, or the few more that share calls with them; write no row.

    `counted` says what the results of one seed count for, in the place of their rows.

    Raises:
        Stopped: The budget is spent, or a model refuses all calls.
    """
    groups = drawn(list(evolver.groups(seeds)), size, evolver.args.seed, evolver.args.pack_size)
    chosen = [seed for group in groups for seed in group]
    meter, watch = Meter(ledger), Watch()
    statistics = DatasetStatistics(paid=evolver.args.paid)
    metered = evolver.recorded(ledger)
    for role in ROLES:
        if (model := getattr(metered, role)) is not None:
            setattr(metered, role, _Metered(model, meter))
    results: list[Results] = []
    with progress_bar("Pilot", len(chosen), ledger, statistics, not show_progress) as advance:

        def keep(made: list[Example | Rejection]) -> None:
            statistics.add(made)
            watch.add(made)
            results.append(made)
            advance(1)

        consume(metered.stream(chosen), keep)
    ledger.conclude()
    made = dict(zip((seed.id for seed in chosen), results, strict=True))
    units = [unit for group in groups for unit in _units(group, evolver.args.pack_size)]
    return Pilot([_outcome(unit, made, meter, counted) for unit in units], statistics)


def forecast_from(pilot: Pilot, evolver: Evolution, seeds: Sequence[Seed], level: float = 0.9) -> Forecast:
    """The forecast for all seeds from those of the pilot."""
    later = "" if evolver.args.answered_in_walk else "expert"
    alike = alike_seeds(seeds, evolver.args.dedup_threshold)
    return forecast(pilot.outcomes, len(seeds), level, alike, later)


def drawn(groups: Sequence[Sequence[Seed]], size: int, key: int, unit: int = 1) -> list[Sequence[Seed]]:
    """Groups with at least `size` seeds and two units of `unit` seeds, drawn at random by `key`, in their order.

    A larger pilot holds the groups of a smaller one, so that it costs no more than if it had been the first.
    """
    order = sorted(range(len(groups)), key=lambda place: uniform("pilot", key, groups[place][0].id))
    taken, count = list[int](), 0
    while len(taken) < len(order) and count < max(size, LEAST_UNITS * unit):
        place = order[len(taken)]
        taken.append(place)
        count += len(groups[place])
    return [groups[place] for place in sorted(taken)]


def alike_seeds(seeds: Sequence[Seed], threshold: float) -> int:
    """How many seeds are near-duplicates of an earlier one."""
    index = NearDuplicates(threshold)
    return sum(not index.add(seed.text, seed.id) for seed in seeds)


def _units(group: Sequence[Seed], size: int) -> Iterator[Sequence[Seed]]:
    for start in range(0, len(group), size):
        yield group[start : start + size]


def _outcome(
    unit: Sequence[Seed], made: Mapping[str, Results], meter: Meter, counted: Callable[[Results], int]
) -> Outcome:
    results = [result for seed in unit for result in made[seed.id]]
    reasons = Counter(result.reason for result in results if isinstance(result, Rejection))
    rows = sum(counted(made[seed.id]) for seed in unit)
    spent: dict[str, Spent] = {}
    for seed in unit:
        for role, more in meter.taken.get(seed.id, {}).items():
            spent[role] = _sum(spent.get(role, NOTHING), more)
    return Outcome(len(unit), rows, reasons[Reason.NEAR_DUPLICATE], spent)


def _sum(one: Sequence[float], two: Sequence[float]) -> Spent:
    calls, prompt, answer, cost = (a + b for a, b in zip(one, two, strict=True))
    return calls, prompt, answer, cost
