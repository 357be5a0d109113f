"""Progress of a run: in go a ledger and the counts of a dataset, out comes a bar on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..models.ledger import Ledger
from ..publish.counts import DatasetStatistics

Advance = Callable[[int], object]


@contextmanager
def progress_bar(
    title: str, seeds: int, ledger: Ledger, statistics: DatasetStatistics | None = None, hidden: bool = False
) -> Iterator[Advance]:
    """A bar over `seeds` with their rate, the time left, and rows, calls and money so far.

    Yields:
        A function to call with the number of seeds that are done.
    """
    from tqdm import tqdm

    often = 0.2 if sys.stderr.isatty() else 10  # So that a log file stays short.
    with tqdm(total=seeds, desc=title, unit="seed", disable=hidden, mininterval=often) as bar:

        def counts() -> dict[str, Any]:
            rows = {"rows": statistics.rows} if statistics else {}
            return {**rows, "calls": ledger.calls, **({"spent": f"{ledger.cost:.4g}"} if ledger.prices else {})}

        def advance(done: int) -> None:
            # Only when the bar is drawn: formatting the counts for each seed would cost more than the seed.
            if bar.update(done):
                bar.set_postfix(counts(), refresh=False)

        yield advance
        bar.set_postfix(counts())
