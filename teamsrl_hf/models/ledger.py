"""SQLite record of every model call: each answer is committed before it is returned, and is never bought twice.

In goes a `Generator`, out comes one with memory and a budget. A killed run replays the answers it paid for; a run that
has spent its budget stops before the next purchase and continues under a higher one.

A failure is final, and is replayed like an answer, if the model refused this one request: the error says so, and a
later call of the same kind was answered. Any other failure (a wrong key, no credit, an outage, a parameter that the
model always refuses) is recorded and counts as spent, and the next run repeats the call.
"""

import asyncio
import json
import logging
import math
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..calls import SETTLE_SECONDS, CallsInFlight, run_async
from ..errors import Stopped, UserError
from ..types import Tier
from . import ledger_file
from .base import Completion, Generator, Request, Wrapper, is_immediate
from .base import request_key as request_key
from .batch.table import Place
from .budget import Budget, Paying, Price, Reservations, most_tokens, with_estimates
from .ledger_file import Spent
from .pacing import suspicious

if TYPE_CHECKING:
    from .batch.batches import Batches

logger = logging.getLogger(__name__)
_NOTHING = Spent(0, 0, 0, 0.0, 0.0)


@dataclass(frozen=True)
class Totals:
    """Sums over the calls of one role, failed ones included.

    `seconds` adds up the time of each call; it is not wall time. `attempts` counts requests, retries included.
    `estimated` counts calls for which the server may charge more than it reported; `estimated_tokens` and
    `estimated_cost` are the parts of their tokens and of their cost that are estimates, `cached_tokens` the part of
    the prompts that the server read from its cache.
    """

    calls: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float = 0.0
    attempts: int = 0
    estimated: int = 0
    cached_tokens: int = 0
    estimated_tokens: int = 0
    estimated_cost: float = 0.0


class Ledger:
    """The record of one run, in one file.

    Args:
        path: SQLite file, created if missing. One process at a time may hold it. Older versions are migrated.
        retry_errors: Repeat each failed call of earlier runs once, even if the failure is final.
        prices: Money per million tokens by model name. The cost is stored with the call, so later prices do not change
            it.
        budget: Limits on what is spent. The ledger reserves the highest cost of each request in flight: a token per
            byte of the prompt, and `max_tokens` for the answer. A server that respects `max_tokens` cannot exceed it.
        read_from: Other ledgers to replay answers from. They are not changed, several processes may read them at
            once, and their costs do not count here.
        since: Time (as of `time.time`) at which this run began. Failures recorded later are not repeated. By default
            these are the failures that this object has recorded.

    Attributes:
        calls, attempts, tokens, cost, estimated_cost: Spent so far, including earlier runs with this file: calls,
            requests sent for them, their tokens, money, and the part of it that is estimated.
        replayed: Answers replayed since the ledger was opened.
        batches: What is asked through batch APIs.

    An answer that no longer has the checksum it was recorded with is named in the log and bought again.

    If a server reports no tokens, one token is booked for every four bytes of text, and the call is marked as
    estimated. What a failed attempt cost is recorded before the next one is sent.

    Raises:
        UserError: Another process holds the file, or it is not a ledger.
        OSError: The file cannot be written (disk full, read-only).
    """

    def __init__(
        self,
        path: str | Path,
        retry_errors: bool = False,
        prices: Mapping[str, Price] | None = None,
        budget: Budget = Budget(),  # noqa: B008 (frozen)
        read_from: Sequence[str | Path] = (),
        since: float = math.inf,
    ):
        self.path, self.since = Path(path), since
        self.retry_errors = retry_errors
        self.prices, self.budget = dict(prices or {}), budget
        self.replayed, self._closed = 0, False
        self._in_flight: dict[bytes, asyncio.Future[Completion]] = {}
        # Calls under way with failed attempts: since when, and what they have cost.
        self._unfinished: dict[bytes, tuple[float, Spent]] = {}
        self._purchases = CallsInFlight()
        self._failed: set[bytes] = set()  # Handed out in this run, as new or as replayed.
        self._asked_again: set[bytes] = set()
        self._recorded, self._reservations = list[_Recorded](), Reservations(budget)
        self._connection = ledger_file.open_to_write(self.path)
        self.batches = _batches(self)
        self._readers = [(self.path, self._connection, ledger_file.selection(self._connection))]
        try:
            self._recount()
            self.batches.load()
            for other in map(Path, read_from):
                connection = ledger_file.open_to_read(other)
                self._readers.append((other, connection, ledger_file.selection(connection)))
        except BaseException:
            self.close()
            raise
        if self.calls:
            logger.info("The ledger %s holds %s calls; what was answered is replayed.", self.path, f"{self.calls:,}")

    def record(self, generator: Generator) -> Generator:
        """The generator with memory: it replays recorded answers and records new ones; equal requests share one call.

        Raises:
            UserError: The budget is in money, and the model has no price.
            BudgetExhausted: When called: the call might exceed the budget.
        """
        free = is_immediate(generator)  # No endpoint answers without waiting.
        if self.budget.cost is not None and generator.model not in self.prices and not free:
            raise UserError(
                f"The budget is in money but {generator.model!r} has no price; list the model in prices, with 0 if "
                "it costs nothing, or give a budget in calls or tokens."
            )
        self.batches.join(generator)
        self._recorded.append(_Recorded(self, generator))
        return self._recorded[-1]

    def find(self, key: bytes) -> Completion | None:
        """The recorded answer of a request, else its recorded failure; None if the request has to be sent."""
        failed = None
        for path, connection, selection in self._readers:
            try:
                row = connection.execute(selection, (key,)).fetchone()
            except sqlite3.Error as error:
                raise ledger_file.explained(error, path) from error
            if row is not None and ledger_file.is_damaged(key, row):
                logger.warning("The ledger %s holds a damaged answer, %s; it is bought again.", path, key.hex())
                if connection is self._connection:
                    self._asked_again.add(key)
                continue
            if row is not None and row[5] is None:
                scores = () if row[9] is None else tuple(json.loads(row[9]))
                return replace(Completion(*row[:7]), scores=scores)
            failed = failed or row
        if failed is None:
            return None
        *answer, created, final, _, _ = failed
        if key in self._failed or created >= self.since or (final and not self.retry_errors):
            self._failed.add(key)
            return Completion(*answer)
        self._asked_again.add(key)
        return None

    def write(
        self,
        key: bytes,
        role: str,
        completion: Completion,
        seconds: float,
        price: Price = Price(),  # noqa: B008 (frozen)
    ) -> None:
        """Commit one answer or one failure."""
        row, spent = ledger_file.row_of(key, role, completion, seconds, time.time(), price)
        begun, before = self._unfinished.pop(key, (None, _NOTHING))
        try:
            ledger_file.insert(self._connection, row, key in self._asked_again, begun)
        except sqlite3.Error as error:
            raise ledger_file.explained(error, self.path) from error
        self._count(spent, before)
        if completion.error is not None:
            self._failed.add(key)

    def write_unfinished(self, key: bytes, role: str, so_far: Completion, price: Price) -> None:
        """Commit what a call under way has cost by now; `write` takes its place."""
        begun, before = self._unfinished.get(key, (time.time(), _NOTHING))
        row, spent = ledger_file.row_of(key, role, so_far, 0.0, begun, price)
        with ledger_file.in_words(self.path):
            ledger_file.insert_unfinished(self._connection, row)
        self._unfinished[key] = begun, spent
        self._count(spent, before)

    def write_besides(self, key: bytes, role: str, completion: Completion, number: int) -> None:
        """Commit a call that was paid for and is not to be replayed; `number` tells apart those of one moment."""
        price = self.prices.get(completion.model, Price())
        row, spent = ledger_file.row_of(key, role, completion, float(number), time.time(), price)
        ledger_file.insert_besides(self._connection, row)
        self._count(spent, _NOTHING)

    def _count(self, spent: Spent, before: Spent) -> None:
        """Count what a call has cost, of which `before` is counted already."""
        self.calls += spent.calls - before.calls
        self.attempts += spent.attempts - before.attempts
        self.tokens += spent.tokens - before.tokens
        self.cost += spent.cost - before.cost
        self.estimated_cost += spent.estimated_cost - before.estimated_cost

    def spent_on(self, key: bytes) -> tuple[int, int, int, float]:
        """Requests, prompt tokens, answer tokens and money of one recorded call."""
        return ledger_file.spent_on(self._connection, key)

    def conclude(self) -> None:
        """Make the last refusals final if they are few. Call it at the end of a run that was not stopped."""
        for recorded in self._recorded:
            recorded.conclude()

    def _make_final(self, keys: Iterable[bytes]) -> None:
        with ledger_file.in_words(self.path):
            self._connection.executemany(
                "UPDATE calls SET final = 1 WHERE key = ? AND error IS NOT NULL", [(key,) for key in keys]
            )

    def _has_answered(self, role: str, model: str) -> bool:
        found = "SELECT 1 FROM calls WHERE error IS NULL AND role = ? AND model = ? LIMIT 1"
        return self._connection.execute(found, (role, model)).fetchone() is not None

    def totals(self) -> dict[str, Totals]:
        """Totals by role, roles in alphabetical order."""
        return {role: Totals(*sums) for role, *sums in ledger_file.sums_by_role(self._connection)}

    def failures(self) -> list[tuple[str, bool]]:
        """The error of each failed call of this run, and whether it is final."""
        found = "SELECT key, error, final FROM calls WHERE error IS NOT NULL AND "
        rows = self._connection.execute(f"{found} created >= ?", (self.since,)).fetchall()
        rows += [row for key in self._failed for row in self._connection.execute(f"{found} key = ?", (key,))]
        return [(error, bool(final)) for error, final in {key: rest for key, *rest in rows}.values()]

    def _recount(self) -> None:
        with ledger_file.in_words(self.path):
            self.calls, self.attempts, self.tokens, self.cost, self.estimated_cost = ledger_file.spent(
                self._connection
            )

    def merge(self, paths: Iterable[str | Path]) -> None:
        """Add the records of other ledgers, such as those of several processes. A second merge changes nothing.

        If both ledgers hold a request, an answer wins over a failure, a newer failure over an older one, and an answer
        of this ledger over another. The other record still counts as spent.

        Raises:
            UserError: A ledger is missing, is not a ledger, or is held by another process.
        """
        for path in map(Path, paths):
            if path.resolve() == self.path.resolve():
                continue
            with ledger_file.in_words(self.path):
                ledger_file.merge_file(self._connection, path)
        self._recount()

    @property
    def identity(self) -> str:
        """A random name that stays the same when the file is renamed."""
        return ledger_file.identity(self._connection)

    def belong_to(self, identity: str, rank: int) -> None:
        """Record that this ledger is the part of process `rank`; `identity` names the launch's main ledger."""
        ledger_file.identify(self._connection, identity, rank)

    async def settle(self, seconds: float | None = SETTLE_SECONDS) -> None:
        """Wait until the calls in flight are recorded. With `seconds`, wait no longer, and send nothing more."""
        await self.batches.detach()
        waiting = (getattr(recorded.generator, "waiting", ()) for recorded in self._recorded)
        await self._purchases.settle(seconds, () if seconds is None else set().union(*waiting))

    def close(self, seconds: float | None = None) -> None:
        """Call `settle`, then close the file."""
        if self._purchases.in_shared_loop():
            run_async(self.settle(seconds))
        self.batches.say_what_is_out()
        for _, connection, _ in self._readers:
            connection.close()
        if self.replayed and not self._closed:
            logger.info("The ledger %s replayed %s answers.", self.path, f"{self.replayed:,}")
        self._closed = True

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        pressing = kind is not None and not issubclass(kind, Stopped)
        self.close(SETTLE_SECONDS if pressing else None)


class _Recorded(Wrapper):
    def __init__(self, ledger: Ledger, generator: Generator):
        super().__init__(generator)
        self.ledger, self._estimates, self.endpoint = ledger, False, self.batch
        self.price = ledger.prices.get(generator.model, Price())
        # By role and kind: times and keys of refused requests, until a later one is answered.
        self._in_doubt: dict[tuple[str, str], list[tuple[float, bytes]]] = {}

    async def __call__(self, request: Request) -> Completion:
        request = self.as_asked(request)
        ledger, key = self.ledger, request_key(request, self.model, self.answer_options(request))
        if ledger.batches.earlier and not self.immediate:
            await ledger.batches.fetched(key, self.endpoint is not None)
        paying = self._paying(key, request)
        while True:
            if (twin := ledger._in_flight.get(key)) is not None:
                await asyncio.wait([twin])
                if not twin.cancelled():
                    return twin.result()
                continue
            if (known := ledger.find(key)) is not None:
                ledger.replayed += 1
                return known
            if paying.may_begin():
                return await self._buy(key, request, paying)
            await ledger._reservations.room()

    async def settle(self, seconds: float | None) -> None:
        """See `Ledger.settle`."""
        await self.ledger.settle(seconds)

    def _paying(self, key: bytes, request: Request) -> Paying:
        ledger, most = self.ledger, None
        if ledger._reservations.limited:
            tokens = most_tokens(request, self.answer_options(request))
            price = self.price if self.endpoint is None else self.price.at(Tier.BATCH)
            most = 1, sum(tokens), price.of(*tokens)
        book = partial(ledger.write_unfinished, key, request.role, price=self.price)
        return Paying(ledger._reservations, most, lambda: (ledger.attempts, ledger.tokens, ledger.cost), book)

    async def _buy(self, key: bytes, request: Request, paying: Paying) -> Completion:
        if self.immediate:  # It never waits, so no equal request can be in flight.
            try:
                return await self._ask(key, request)
            finally:
                self._bought(key, paying)
        # Its own task: the caller may be cancelled, but the answer is paid for.
        purchase = self.ledger._purchases.start(self._ask(key, replace(request, purchase=paying)))
        self.ledger._in_flight[key] = purchase
        purchase.add_done_callback(lambda _: self._bought(key, paying))
        return await asyncio.shield(purchase)

    def _bought(self, key: bytes, paying: Paying) -> None:
        self.ledger._in_flight.pop(key, None)
        self.ledger._unfinished.pop(key, None)
        paying.release()

    async def _ask(self, key: bytes, request: Request) -> Completion:
        started = time.monotonic()
        if self.endpoint is not None:
            most = most_tokens(request, self.answer_options(request))
            completion = await self.ledger.batches.ask(self.endpoint, key, request, Place(request.role, *most))
            self._doubt((request.role, request.kind), key, completion, started)
            return completion
        completion = await self.generator(request)
        seconds = time.monotonic() - started
        counted = completion if self.immediate else with_estimates(completion, request)
        if counted is not completion and not self._estimates:
            self._estimates = True
            logger.warning("%s reports no tokens; one is booked for every four bytes.", self.model)
        completion = counted
        self.ledger.write(key, request.role, completion, seconds, self.price)
        self._doubt((request.role, request.kind), key, completion, started)
        return completion

    def _doubt(self, kind: tuple[str, str], key: bytes, completion: Completion, sent: float) -> None:
        """Note a refusal. After an answer, refusals that came before its request was sent are final."""
        if completion.error is not None and completion.request_refused:
            self._in_doubt.setdefault(kind, []).append((time.monotonic(), key))
        elif completion.error is None and kind in self._in_doubt:
            doubted = self._in_doubt.pop(kind)
            self.ledger._make_final(key for refused, key in doubted if refused <= sent)
            if left := [entry for entry in doubted if entry[0] > sent]:
                self._in_doubt[kind] = left

    def conclude(self) -> None:
        for (role, _), doubted in self._in_doubt.items():
            if len(doubted) < suspicious(self.concurrency) and self.ledger._has_answered(role, self.model):
                self.ledger._make_final(key for _, key in doubted)


def _batches(ledger: Ledger) -> "Batches":
    from .batch.batches import Batches  # Of no use to `--help`.

    return Batches(ledger)
