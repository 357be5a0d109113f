"""Waves: in go requests that wait for batches, out come shards to send once nothing goes on without their answers.

Chains wait for answers, so that sooner or later all that is under way waits for a batch. What waits then is one wave,
sent as shards of limited size.
"""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...errors import UserError
from ...types import Tier
from ..base import Completion, Request
from ..budget import Price
from ..ledger_file import transaction
from . import table
from .endpoint import BatchEndpoint
from .job import Json, encode
from .table import Place, Shard, Stage

# Most requests and bytes of a shard: all providers take as much, and the loss of one shard is small.
MOST_REQUESTS, MOST_BYTES = 2_000, 90_000_000
_QUIET = 1.0  # Seconds without a new request after which a wave is complete, if nothing else is under way.


@dataclass
class Waiting:
    """A request that waits, and the one who waits for it."""

    endpoint: BatchEndpoint
    request: Request
    place: Place
    answer: "asyncio.Future[Completion]"
    attempts: int = 1

    @property
    def group(self) -> tuple[str, str]:
        """What a batch can hold only one of: the account and the model."""
        return self.endpoint.service.account, self.endpoint.model


class Waves:
    """Requests that wait, by key, sent or not.

    Args:
        send: Called with the keys of a wave.
        under_way: Gives the number of all calls of the run that have not ended, these here among them.
    """

    def __init__(self, send: Callable[[list[bytes]], None], under_way: Callable[[], int]):
        self._send_wave, self._under_way = send, under_way
        self._waiting: dict[bytes, Waiting] = {}
        self._fresh: list[bytes] = []  # Of these, the ones that have not been sent.
        self._timer: asyncio.TimerHandle | None = None
        self._stop: BaseException | None = None
        self._others = False  # Whether other calls were under way lately.

    def __getitem__(self, key: bytes) -> Waiting:
        return self._waiting[key]

    async def wait(self, key: bytes, waiting: Waiting) -> Completion:
        """Have a request sent with the next wave; returns its answer."""
        if self._stop is not None:
            raise self._stop
        self._waiting[key] = waiting
        self._send_later(key)
        try:
            return await waiting.answer
        finally:
            self._waiting.pop(key, None)

    def again(self, key: bytes) -> None:
        """Have a request sent once more, unless nobody waits for it."""
        if key in self._waiting:
            self._waiting[key].attempts += 1
            self._send_later(key)

    def answer(self, key: bytes, answer: Completion) -> None:
        """Hand out an answer, unless nobody waits for it."""
        if key in self._waiting and not self._waiting[key].answer.done():
            self._waiting[key].answer.set_result(answer)

    def attempts(self) -> dict[bytes, int]:
        """How often each request that waits has been sent or is to be."""
        return {key: waiting.attempts for key, waiting in self._waiting.items()}

    def fail(self, error: BaseException) -> None:
        """Tell all who wait, and whoever comes, that nothing more is sent; what is out stays out."""
        self._stop = error
        for waiting in list(self._waiting.values()):
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

    def clear(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._waiting.values():
            waiting.answer.cancel()
        self._waiting, self._fresh, self._stop, self._timer = {}, [], None, None

    def _send_later(self, key: bytes) -> None:
        self._fresh.append(key)
        if self._timer is not None:
            self._timer.cancel()
        if len(self._fresh) >= MOST_REQUESTS:
            self._send()
        else:
            self._wait_for_quiet()

    def _wait_for_quiet(self) -> None:
        quiet = min(_QUIET, *(waiting.endpoint.service.poll for waiting in self._waiting.values()))
        self._timer = asyncio.get_running_loop().call_later(quiet, self._when_quiet)

    def _when_quiet(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        # A call that is no batch's lets a chain go on, which may then ask for more.
        others, self._others = self._others, self._under_way() > len(self._waiting)
        if others or self._others:
            self._wait_for_quiet()
        else:
            self._send()

    def _send(self) -> None:
        self._timer, keys, self._fresh = None, [key for key in self._fresh if key in self._waiting], []
        try:
            self._send_wave(keys)
        except (sqlite3.Error, OSError, UserError) as error:  # Nobody else would hear of it.
            self.fail(error)


def parts(waves: Waves, keys: Sequence[bytes]) -> Iterator[dict[bytes, Json]]:
    """The bodies of requests by key, in parts that make a shard each."""
    groups: dict[tuple[str, str], list[bytes]] = {}
    for key in keys:
        groups.setdefault(waves[key].group, []).append(key)
    for group in groups.values():
        part: dict[bytes, Json] = {}
        size = 0
        for key in group:
            endpoint = waves[key].endpoint
            body = endpoint.body(waves[key].request)
            length = len(encode([endpoint.service.form.line(key.hex(), body)]))
            if part and (len(part) >= MOST_REQUESTS or size + length > MOST_BYTES):
                yield part
                part, size = {}, 0
            part[key], size = body, size + length
        yield part


def write_down(
    connection: sqlite3.Connection, waves: Waves, keys: Sequence[bytes], prices: Mapping[str, Price]
) -> Shard:
    """Write down a new shard before anything of it is sent."""
    account, model = waves[keys[0]].group
    places = {key: waves[key].place for key in keys}
    price = prices.get(model, Price()).at(Tier.BATCH)
    tokens = [(place.prompt, place.answer) for place in places.values()]
    most = len(keys), sum(map(sum, tokens)), sum(price.of(*counts) for counts in tokens)
    content = f"{account} {table.count(connection)} {time.time_ns()} ".encode() + b"".join(keys)
    name = hashlib.sha256(content).hexdigest()[:32]
    shard = Shard(name, account, model, Stage.UPLOADING, None, None, *most, time.time())
    with transaction(connection):
        table.add(connection, shard, places)
    return shard
