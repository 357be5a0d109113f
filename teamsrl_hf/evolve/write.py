"""One evolution from seeds to a finished folder: in go an evolver and its seeds, out comes a dataset with its card.

The stages: claim the folder; buy the answers, where several processes share the seeds; evolve and write the rows, then
the card, the record and the page of chains. After a stop in any stage, the same call continues from the ledger.
"""

import gc
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CallsRefused, NothingMade, Stopped, UserError
from ..models.accounting import money, outcome, spent
from ..models.base import asked_in_batches
from ..models.budget import Budget, Price
from ..models.ledger import Ledger
from ..models.parts import merge_parts, open_part, prepare_parts
from ..publish.cards import inline_code
from ..publish.counts import DatasetStatistics
from ..publish.dataset_writer import DatasetWriter
from ..publish.lineage import write_lineage
from ..publish.plots import plot_dataset
from ..publish.report import write_report
from ..runs import finish_run, hold, open_run, reopen_run
from ..types import Example, Rejection, Seed
from .evolution import ROLES, Evolution
from .progress import Advance, Watch, progress_bar
from .record import CardSettings, RunRecord
from .shards import Team, buy_together, consume, share_of


@dataclass(frozen=True)
class WrittenDataset:
    """A finished folder.

    Attributes:
        folder: Where it is; `load_dataset(str(folder))` loads it.
        rows: Rows of the config `default`.
        rejections: Rejected candidates, by reason.
        calls: Calls that the candidates took, by `CallKind`.
        summary: All counts, as in run.json.
        was_complete: Whether an earlier run had finished the folder, so that nothing was done.
    """

    folder: Path
    rows: int
    rejections: Mapping[str, int]
    calls: Mapping[str, int]
    summary: Mapping[str, Any] = field(repr=False)
    was_complete: bool = False

    @classmethod
    def of(cls, folder: Path, summary: Mapping[str, Any], was_complete: bool = False) -> "WrittenDataset":
        return cls(folder, summary["rows"], summary["rejections"], summary["calls"], summary, was_complete)


@dataclass(frozen=True)
class Payment:
    """Where calls are recorded and what they may cost; see `Ledger`.

    Raises:
        UserError: `ledger` is open already, and settings are given that only opening it could heed.
    """

    ledger: str | Path | Ledger
    retry_errors: bool = False
    prices: Mapping[str, Price] | None = None
    budget: Budget = Budget()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        given = self.retry_errors or self.prices is not None or self.budget != Budget()
        if isinstance(self.ledger, Ledger) and given:
            raise UserError("Give retry_errors, prices and budget to the Ledger, or give write the path of its file.")

    @contextmanager
    def open(self, since: float | None = None) -> Iterator[Ledger]:
        """The ledger; it is closed at the end if it was opened here."""
        if isinstance(self.ledger, Ledger):
            yield self.ledger
            return
        options: dict[str, Any] = {"prices": self.prices, "budget": self.budget}
        if since is not None:
            options |= {"since": since, "retry_errors": self.retry_errors}
        with Ledger(self.ledger, **options) as ledger:
            yield ledger


@dataclass(frozen=True)
class Writing:
    """What is written, where, and how it is paid for and described."""

    evolver: Evolution
    train: Sequence[Seed]
    test: Sequence[Seed]
    folder: Path
    payment: Payment
    card: CardSettings
    record: RunRecord
    overridden: Collection[str] = ()
    show_progress: bool = True

    @property
    def seeds(self) -> list[Seed]:
        """All seeds, in the order in which candidates are decided on."""
        return [*self.train, *self.test]


def write_dataset(writing: Writing) -> WrittenDataset:
    """Evolve and write the folder; see `DatasetEvolver.write`. Returns in all processes when it is finished."""
    team, folder = Team.join(), writing.folder
    if team.size > 1 and isinstance(writing.payment.ledger, Ledger):
        raise UserError("Several processes can't share an open Ledger; give write the path of its file.")
    if team.size > 1 and any(asked_in_batches(getattr(writing.evolver, role)) for role in ROLES):
        raise UserError("Several processes can't share batches, and one is enough for them: launch one process.")
    writing.card.check(writing.record.origin, writing.evolver)
    with ExitStack() as held:
        team.first_does(lambda: held.enter_context(hold(folder)))
        arguments = {**writing.record.arguments, **writing.card.arguments}
        done = team.first_does(lambda: open_run(folder, arguments))
        if done is not None and is_whole(done) and not writing.payment.retry_errors:
            return WrittenDataset.of(folder, done, was_complete=True)
        with garbage_collected_seldom():
            since = team.first_does(time.time)
            refused = _buy(writing, team, since) if team.size > 1 else None
            if refused and not team.first:
                raise SystemExit(refused.status)  # The first process says why.
            # If it fails there, the others end quietly: theirs is not the status that counts.
            summary = team.first_does(lambda: _finish(writing, since, refused), status=0)
    return WrittenDataset.of(folder, summary)


def is_whole(summary: Mapping[str, Any]) -> bool:
    """Whether nothing of a finished run could turn out better if it were run again."""
    return summary["rows"] > 0 and not summary.get("spent", {}).get("to_ask_again")


@contextmanager
def garbage_collected_seldom() -> Iterator[None]:
    """Look for garbage once in 50,000 new objects, and never in what exists by now: a third of a row's time."""
    often = gc.get_threshold()
    gc.set_threshold(50_000, *often[1:])
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*often)


def _buy(writing: Writing, team: Team, since: float) -> CallsRefused | None:
    """Have each process buy its share of the answers into its own ledger; returns why calls were refused, if any."""
    payment, scratch = writing.payment, writing.folder / ".walking"
    assert not isinstance(payment.ledger, Ledger)
    path = Path(payment.ledger)

    def prepare() -> tuple[str, Budget]:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        with payment.open() as ledger:
            return prepare_parts(ledger, team.size), share_of(payment.budget, ledger, team.size)

    identity, budget = team.first_does(prepare)
    options = {"retry_errors": payment.retry_errors, "prices": payment.prices, "budget": budget}
    mine = partial(open_part, path, identity, team.rank, since=since, read_from=[path], **options)
    hidden = not (team.first and writing.show_progress)

    def progress(title: str, ledger: Ledger) -> AbstractContextManager[Advance]:
        return progress_bar(title, -(-len(writing.seeds) // team.size), ledger, hidden=hidden)

    stopped = buy_together(team, writing.seeds, scratch, writing.evolver.recorded, mine, progress)
    if team.first:
        shutil.rmtree(scratch, ignore_errors=True)
    # A process that has spent its part of the budget leaves the rest to the first one.
    return stopped if isinstance(stopped, CallsRefused) else None


def _finish(writing: Writing, since: float, refused: CallsRefused | None) -> dict[str, Any]:
    """What the first process does when all have bought: evolve from the ledger, write the folder, sum up."""
    # Calls that failed in this very launch are not asked again.
    with writing.payment.open(since) as ledger:
        merge_parts(ledger)
        try:
            if refused:
                raise refused
            results = _write(writing, ledger)
        except Stopped as stopped:
            stopped.add_note(outcome(spent(ledger)))
            raise
        ledger.conclude()
        summary = {**results, "spent": spent(ledger)}
    finish_run(writing.folder, summary)
    if not summary["rows"]:
        nothing = NothingMade(f"no row came of {summary['seeds']} seeds", summary)
        nothing.add_note(outcome(summary["spent"], summary, [o.name for o in writing.evolver.operations]))
        raise nothing
    return summary


def _write(writing: Writing, ledger: Ledger) -> dict[str, Any]:
    """Evolve and write the folder as results come."""
    folder, evolver = writing.folder, writing.evolver.recorded(ledger)
    statistics, watch = DatasetStatistics(paid=evolver.args.paid), Watch()
    reopen_run(folder)
    with DatasetWriter(folder, frozenset(seed.id for seed in writing.test)) as writer:
        bar = progress_bar("Evolving", len(writing.seeds), ledger, statistics, not writing.show_progress)
        with bar as advance:

            def keep(results: list[Example | Rejection]) -> None:
                statistics.add(results)
                watch.add(results)
                writer.write(results)
                advance(1)

            consume(evolver.stream(writing.seeds), keep)
        plots = plot_dataset(statistics.summary(), folder)
        cost = money(ledger.cost, ledger.estimated_cost) if ledger.cost else None
        about = writing.record.origin, evolver, _checks(evolver, writing.overridden), plots, cost
        writer.finish(lambda configs: writing.card.text(statistics, configs, *about))
    write_lineage(folder, "dataset", writing.record.origin)
    if statistics.rows or statistics.rejections:
        write_report(folder)
    return {"dataset": str(folder), **statistics.summary()}


def _checks(evolver: Evolution, overridden: Collection[str]) -> list[str]:
    """Sentences for the card: who decided on rows, and which of them repeated a benchmark."""
    own = [f"{inline_code(type(evolver).__qualname__ + '.accept')} decided which rows are kept."]
    return (own if "accept" in overridden else []) + [
        f"Rows refused because they repeat a text of {inline_code(name)}: {count}."
        for judge in evolver.filters
        for name, count in getattr(judge, "matches", {}).items()
    ]
