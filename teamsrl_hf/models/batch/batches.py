"""The batches of a ledger: in go requests of all models that answer in batches, out come their answers, hours later.

Each shard's answers are in the ledger, in one transaction, before anyone gets them. A killed run therefore has nothing
to reconstruct: the next one takes the shards that are still out to their end, and its chains find the answers in the
ledger. Until then no request of theirs is sent anew, by whatever way.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...errors import UserError
from ..base import Completion, Generator, Request
from ..budget import Price, Reservations
from ..ledger_file import transaction
from . import table
from .course import Course, Harvest, ResultsGone
from .endpoint import BatchEndpoint, batch_of
from .harvest import Made, Sorted, lost, sort_out
from .job import Job, Json, Result
from .table import Place, Shard, Stage
from .waves import Waiting, Waves, parts, write_down

logger = logging.getLogger(__name__)


class Book(Protocol):
    """What is asked of a ledger."""

    path: Any
    retry_errors: bool
    prices: dict[str, Price]
    _connection: sqlite3.Connection
    _reservations: Reservations
    _in_flight: "dict[bytes, asyncio.Future[Completion]]"

    def find(self, key: bytes) -> Completion | None: ...

    def write(self, key: bytes, role: str, completion: Completion, seconds: float, price: Price) -> None: ...

    def write_besides(self, key: bytes, role: str, completion: Completion, number: int) -> None: ...


@dataclass
class _Out:
    """A shard under way: its lines as they were sent, where this run has sent them."""

    shard: Shard
    endpoint: BatchEndpoint
    sent: Mapping[bytes, Json] | None
    done: int = 0
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Batches:
    """The batches of one ledger.

    Attributes:
        earlier: Keys of requests that an earlier run has sent and whose answers are not here yet, with their shards.
    """

    def __init__(self, book: Book):
        self._book, self._endpoints = book, list[BatchEndpoint]()
        self._waves = Waves(self._send, lambda: len(book._in_flight))
        self._out: dict[str, _Out] = {}
        self._cancelling = False
        self.earlier: dict[bytes, str] = {}
        self._loaded = False

    def join(self, generator: Generator) -> None:
        """Take in requests to this model from now on, if it answers in batches."""
        if (endpoint := batch_of(generator)) is not None and endpoint not in self._endpoints:
            self._endpoints.append(endpoint)
            # What a killed machine forgets might be bought again; there is little to write.
            self._book._connection.execute("PRAGMA synchronous=FULL")

    async def fetched(self, key: bytes, batched: bool) -> None:
        """Wait until no shard of an earlier run has this request any more.

        Args:
            batched: Whether the request would be sent in a batch.

        Raises:
            UserError: The shard is not for this run to fetch.
        """
        self._resume()
        while (shard := self.earlier.get(key)) is not None:
            out = self._out.get(shard)
            if out is None or out.task is None or not batched:
                raise UserError(f"{self.describe()} This run asks without batches; add `batch: true` to the model.")
            await asyncio.wait([out.task])
            if not out.task.cancelled() and (error := out.task.exception()) is not None:
                raise error

    async def ask(self, endpoint: BatchEndpoint, key: bytes, request: Request, place: Place) -> Completion:
        """Have a request sent with the next wave; returns its answer, which is in the ledger by then."""
        _ = endpoint.service.account  # An error in it has to show here.
        answer = asyncio.get_running_loop().create_future()
        return await self._waves.wait(key, Waiting(endpoint, request, place, answer))

    async def cancel(self) -> tuple[int, int]:
        """Have all batches that are out cancelled, and take in what they have answered.

        Returns:
            How many they are, and how many answers they gave.
        """
        self._cancelling, before = True, table.outstanding(self._book._connection)
        keys = set(self.earlier)
        self._resume()
        tasks = [out.task for out in self._out.values() if out.task is not None]
        if len(tasks) < len(before):
            raise UserError(self.describe())
        await asyncio.gather(*tasks)
        found = [self._book.find(key) for key in keys]
        return len(before), sum(answer is not None and answer.error is None for answer in found)

    async def detach(self) -> None:
        """Leave the batches to their providers: nothing waits any more, and the next call fetches what they answer."""
        self._waves.clear()
        tasks = [out.task for out in self._out.values() if out.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._out = {}
        self.load()

    def describe(self) -> str:
        """What is out, and how to come back to it; empty where nothing is."""
        shards = [one for one in table.outstanding(self._book._connection) if one.stage is not Stage.UPLOADING]
        if not shards:
            return ""
        names = ", ".join(shard.batch_id or "one whose id is not known yet" for shard in shards)
        requests = sum(shard.requests for shard in shards)
        return (
            f"The ledger {self._book.path} has {len(shards)} batches under way, of {requests:,} requests: {names}. "
            "The same command fetches their answers; with --cancel it cancels them and keeps what they have answered."
        )

    def say_what_is_out(self) -> None:
        """Tell the log, before the ledger is closed."""
        if self._loaded and (out := self.describe()):
            logger.warning("%s", out)
        self._loaded = False

    def progress(self) -> dict[str, str]:
        """Requests that have ended of those under way, for a progress bar."""
        total = sum(out.shard.requests for out in self._out.values())
        done = sum(out.done for out in self._out.values())
        return {"batches": f"{len(self._out)}, {done:,}/{total:,}"} if total else {}

    def load(self) -> None:
        """Read from the ledger what is out."""
        connection, self._loaded = self._book._connection, False
        shards = table.outstanding(connection)
        self.earlier = {key: shard.hash for shard in shards for key in table.places(connection, shard.hash)}
        self._loaded = True

    def _send(self, keys: Sequence[bytes]) -> None:
        """Write down and send a wave."""
        for sent in parts(self._waves, keys):
            endpoint = self._waves[next(iter(sent))].endpoint
            self._start(write_down(self._book._connection, self._waves, list(sent), self._book.prices), endpoint, sent)

    def _resume(self) -> None:
        """Take the shards of earlier runs to their end.

        Raises:
            UserError: One is of another account.
        """
        accounts = {(one.service.account, one.model): one for one in self._endpoints}
        for shard in table.outstanding(self._book._connection):
            endpoint = accounts.get((shard.account, shard.model))
            if endpoint is not None and shard.hash not in self._out:
                self._start(shard, endpoint, None)
            elif endpoint is None:
                self._refuse_account(shard)

    def _refuse_account(self, shard: Shard) -> None:
        for endpoint in self._endpoints:
            if endpoint.model == shard.model:
                raise UserError(
                    f"The batch {shard.batch_id or shard.hash} was made by the account {shard.account}, and this run "
                    f"is of {endpoint.service.account}: another address than {endpoint.base_url}, or another key than "
                    f"{endpoint.service.variable} holds. Batches are fetched by the account that pays for them; give "
                    "back its address and key."
                )

    def _start(self, shard: Shard, endpoint: BatchEndpoint, sent: Mapping[bytes, Json] | None) -> None:
        out = self._out[shard.hash] = _Out(shard, endpoint, sent)
        if sent is None:
            self._book._reservations.take(shard.most)
        out.task = asyncio.create_task(self._finish(out))
        out.task.add_done_callback(lambda task: self._finished(out, task))

    def _finished(self, out: _Out, task: "asyncio.Task[None]") -> None:
        """Called when a shard's task has ended, by any way."""
        if out.sent is None:
            self._book._reservations.release(out.shard.most)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._waves.fail(error)
            return
        self._out.pop(out.shard.hash, None)

    async def _finish(self, out: _Out) -> None:
        """Take a shard to its end, and its answers into the ledger."""
        connection, shard = self._book._connection, out.shard
        places = table.places(connection, shard.hash)
        names = frozenset(key.hex() for key in places)
        requests = None if out.sent is None else {key.hex(): body for key, body in out.sent.items()}

        def told(job: Job) -> None:
            out.done = job.done

        course = Course(shard, out.endpoint.service, connection, requests, names, told)
        try:
            harvest = await course.run(self._cancelling)
        except ResultsGone as gone:
            if not self._book.retry_errors:
                raise
            besides = lost(places, shard.model, str(gone))
            made = Sorted({}, besides, list(places))
        else:
            made = Sorted({}, [], list(places)) if harvest is None else self._sorted(out, places, harvest)
        self._take_in(shard, places, made)
        if made.stop is not None and not self._cancelling:
            raise made.stop

    def _sorted(self, out: _Out, places: Mapping[bytes, Place], harvest: Harvest) -> Sorted:
        sent, endpoint = out.sent or {}, out.endpoint

        def read(key: bytes, result: Result) -> Made:
            return endpoint.read(result, sent.get(key))

        return sort_out(harvest, places, read, endpoint.model, self._waves.attempts(), endpoint.max_retries + 1)

    def _take_in(self, shard: Shard, places: Mapping[bytes, Place], made: Sorted) -> None:
        """Write down what came of a shard, then hand out the answers and send again what has to be."""
        book, seconds = self._book, time.time() - shard.created
        price = book.prices.get(shard.model, Price())
        with transaction(book._connection):
            for key, answer in made.answers.items():
                if (known := book.find(key)) is None or known.error is not None:
                    book.write(key, places[key].role, answer, seconds, price)
            for number, (key, answer) in enumerate(made.besides):
                book.write_besides(key, places[key].role, answer, number)
            table.close(book._connection, shard.hash)
        for key in places:
            self.earlier.pop(key, None)
        for key, answer in made.answers.items():
            self._waves.answer(key, answer)
        for key in made.again if made.stop is None else ():
            self._waves.again(key)
