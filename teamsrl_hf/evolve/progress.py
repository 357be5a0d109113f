"""Progress of a run: in go a ledger and results, out come a bar on standard error and warnings of a failing run."""

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..models.ledger import Ledger
from ..publish.counts import DatasetStatistics
from ..types import BY_RULES, Example, Reason, Rejection, Verdict

Advance = Callable[[int], object]
logger = logging.getLogger(__name__)
# Fewer steps than these say nothing.
FEWEST, FEWEST_OF_OPERATION = 20, 50


@contextmanager
def progress_bar(
    title: str, seeds: int, ledger: Ledger, statistics: DatasetStatistics | None = None, hidden: bool = False
) -> Iterator[Advance]:
    """A bar over `seeds` with rate, time left, and counts so far: rows, rejections by reason, calls, tokens, money.

    The counts are live from the first call on, also while no seed is done yet.

    Yields:
        A function to call with the number of seeds that are done.
    """
    from tqdm import tqdm

    often = 0.2 if sys.stderr.isatty() else 10  # So that a log file stays short.
    ended = threading.Event()
    with tqdm(total=seeds, desc=title, unit="seed", disable=hidden, mininterval=often) as bar:

        def show_counts() -> None:
            while not ended.wait(often):
                bar.set_postfix(_counts(ledger, statistics))

        # Formatting the counts for each seed would cost more than the seed.
        thread = threading.Thread(target=show_counts, name="teamsrl-progress", daemon=True)
        if not hidden:
            thread.start()
        try:
            yield bar.update
        finally:
            ended.set()
            if not hidden:
                thread.join()
        bar.set_postfix(_counts(ledger, statistics))


def _counts(ledger: Ledger, statistics: DatasetStatistics | None) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    if statistics is not None:
        counts |= {"rows": statistics.rows, **dict(statistics.rejections)}
    counts |= {"calls": ledger.calls, "tokens": ledger.tokens}
    counts |= ledger.batches.progress()
    if ledger.prices:
        counts["spent"] = f"{ledger.cost:.4g}"
    if ledger.estimated_cost:
        counts["estimated"] = f"{ledger.estimated_cost:.4g}"
    return counts


class Watch:
    """Logs a warning, once each, as soon as a run goes wrong.

    It does so when half of the rewrites are cut off, half of the verdicts can't be read, or an operation never passes.
    """

    def __init__(self) -> None:
        self.steps = self.cut = self.verdicts = self.unreadable = 0
        self.tried: Counter[str] = Counter()
        self.passed: set[str] = set()
        self._warned: set[str] = set()

    def add(self, results: Sequence[Example | Rejection]) -> None:
        """Count the results of one seed."""
        for result in results:
            step, reason = result.candidate.transition, getattr(result, "reason", None)
            if reason in (Reason.NOTHING_PLANNED, Reason.CALL_FAILED):
                continue
            self.steps += 1
            self.cut += reason == Reason.CUT_OFF
            self.tried[step.operation] += 1
            if step.review.passed:
                self.passed.add(step.operation)
            if step.review.reviewer != BY_RULES:
                self.verdicts += 1
                self.unreadable += step.review.verdict == Verdict.UNREADABLE
        self._warn()

    def _warn(self) -> None:
        if self.steps >= FEWEST and 2 * self.cut >= self.steps:
            self._once("%d of %d rewrites are cut off; raise max_tokens, or set retry_cut", self.cut, self.steps)
        if self.verdicts >= FEWEST and 2 * self.unreadable >= self.verdicts:
            message = "%d of %d verdicts can't be read; use another reviewer"
            self._once(message, self.unreadable, self.verdicts)
        for operation, tries in self.tried.items():
            if tries >= FEWEST_OF_OPERATION and operation not in self.passed:
                self._once(f"no rewrite by {operation} has passed in %d tries; check it, or leave it out", tries)

    def _once(self, message: str, *numbers: int) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *numbers)
