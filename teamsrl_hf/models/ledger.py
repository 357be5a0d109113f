"""SQLite record of every model call: an answer is committed before anyone sees it, and is never asked for again.

In goes a `Generator`, out comes one with memory and a budget. A run that was killed replays what it already paid for
from here; one that spent its budget stops before the next purchase and goes on under a higher one.

A failure is final, and is replayed like an answer, if the model refused this very request: it said so, and a call of
the same kind that was sent afterwards was answered. Any other failure (a wrong key, no credit, an outage, a parameter
that is refused to all) is recorded, counts as spent, and is asked again by the next run.
"""

import asyncio
import hashlib
import json
import math
import operator
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from ..errors import Stopped, UserError
from .base import Completion, Generator, Request
from .calls import SETTLE_SECONDS, CallsInFlight, run_async
from .pacing import suspicious

VERSION = 3
# Calls, tokens, money: the order of `Budget`.
Amounts = tuple[int, int, float]
_ANSWER = "text, model, prompt_tokens, completion_tokens, finish_reason, error"
# What earlier versions did not have, and what their calls get for it.
_ADDED = {"cost": "REAL NOT NULL DEFAULT 0", "attempts": "INTEGER NOT NULL DEFAULT 1"}
_ADDED |= {"estimated": "INTEGER NOT NULL DEFAULT 0", "final": "INTEGER NOT NULL DEFAULT 0"}
_NAMES = f"key, role, {_ANSWER}, seconds, created, {', '.join(_ADDED)}"
# The text stands last, so that sums over the rest need not read it.
_COLUMNS = """
    key BLOB, role TEXT NOT NULL, model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT
    NULL, finish_reason TEXT NOT NULL, error TEXT, seconds REAL NOT NULL, created REAL NOT NULL, {added}, text TEXT NOT
    NULL, PRIMARY KEY ({key})
""".replace("{added}", ", ".join(f"{name} {kind}" for name, kind in _ADDED.items()))
# Failures that were asked again, and answers bought twice by two processes: they cost, but are replayed no more.
_SCHEMA = {
    "calls": _COLUMNS.replace("{key}", "key"),
    "superseded": _COLUMNS.replace("{key}", "key, created, seconds"),
}
# Which file this is, and of which other one it is a part, see `parts`. Made when it is first asked for.
_IDENTITY = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL, part_of TEXT, rank INTEGER)"
_INSERT = f"INSERT OR REPLACE INTO calls ({_NAMES}) VALUES ({', '.join('?' * len(_NAMES.split(', ')))})"
_PURCHASES = "(SELECT {0} FROM calls UNION ALL SELECT {0} FROM superseded)"
_SAME = "a.key = b.key AND a.created = b.created AND a.seconds = b.seconds"
# Not json.dumps: given options, it builds an encoder at each call.
_encode = json.JSONEncoder(sort_keys=True).encode


def _check_amounts(amounts: object, what: str) -> None:
    for name, value in vars(amounts).items():
        if value is None and what == "budget":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(f"The {what} {name} is {value!r}, wanted a number from 0 up; correct it or leave it out.")


class BudgetExhausted(Stopped):
    """The next purchase might exceed the budget. Nothing is wrong: a run under a higher budget goes on from here."""


@dataclass(frozen=True)
class Price:
    """Money per million tokens, in whatever currency the budget is in.

    Raises:
        UserError: A price is no number from 0 up.
    """

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self):
        _check_amounts(self, "price")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money for so many tokens.

        >>> Price(prompt=2.0, completion=8.0).of(1_000_000, 500_000)
        6.0
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


@dataclass(frozen=True)
class Budget:
    """Most that may be spent over a ledger's whole life; None is no limit. Failed calls count, replays do not.

    Raises:
        UserError: A limit is no number from 0 up.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self):
        _check_amounts(self, "budget")


@dataclass(frozen=True)
class Totals:
    """Sums over the purchases of one role, failed ones included.

    `seconds` is time spent waiting for answers, not wall time. `attempts` counts requests as sent, retries included.
    `estimated` counts calls whose tokens the server did not report.
    """

    calls: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float = 0.0
    attempts: int = 0
    estimated: int = 0


def request_key(request: Request, model: str) -> bytes:
    """16 bytes that differ whenever anything does that could change the answer."""
    content = [request.role, model, request.messages, vars(request.sampling), request.sample_index]
    return hashlib.blake2b(_encode(content).encode(), digest_size=16).digest()


class Ledger:
    """The record of one run, in one file.

    Args:
        path: SQLite file, made if missing. One process at a time may hold it. An older version's is migrated.
        retry_errors: Ask again, once, for all calls recorded as failed before, also where the failure is final.
        prices: Money per million tokens by model name. The cost is stored with the call, so that later prices don't
            rewrite history.
        budget: What may be spent. What calls in flight may yet cost is held back: as many tokens for the prompt as it
            has bytes, and `max_tokens` for the answer. So a server that keeps to `max_tokens` can't exceed it.
        read_from: Other ledgers whose answers count as recorded. They are not written to, may be read by several
            processes at once, and what they cost is not counted here.
        since: Time (as of `time.time`) from which on recorded failures belong to this very run, which does not ask
            twice. By default those are the ones that this object has recorded.

    Attributes:
        calls, tokens, cost: Spent so far, this file's earlier runs included.
        replayed: Answers given from the record since it was opened.

    Where a server reports no tokens for an answer, one token is booked for every four bytes of text and the call is
    marked as estimated.

    Raises:
        UserError: The file is held by another process, or is no ledger.
        OSError: The record can't be written (disk full, read-only).
    """

    def __init__(
        self,
        path: str | Path,
        retry_errors: bool = False,
        prices: Mapping[str, Price] | None = None,
        budget: Budget = Budget(),
        read_from: Sequence[str | Path] = (),
        since: float = math.inf,
    ):
        self.path, self.since = Path(path), since
        self.retry_errors = retry_errors
        self.prices, self.budget = dict(prices or {}), budget
        self.replayed = 0
        self._in_flight: dict[bytes, asyncio.Future[Completion]] = {}
        self._purchases = CallsInFlight()
        self._failed: set[bytes] = set()  # Handed out in this run, as new or as replayed.
        self._asked_again: set[bytes] = set()
        self._recorded: list[_Recorded] = []
        self._desk = _Desk(budget)
        self._connection = _open(self.path)
        self._readers = [(self._connection, _selection(self._connection))]
        try:
            self.calls, self.tokens, self.cost = self._spent()
            for other in map(Path, read_from):
                connection = _open_to_read(other)
                self._readers.append((connection, _selection(connection)))
        except BaseException:
            self.close()
            raise

    def record(self, generator: Generator) -> Generator:
        """The generator with memory: answered requests are replayed, new ones recorded, twins in flight share one.

        Raises:
            UserError: The budget is in money, and what the model costs is not known.
            BudgetExhausted: When called: the purchase might exceed the budget.
        """
        free = getattr(generator, "immediate", False)  # No endpoint answers without waiting.
        if self.budget.cost is not None and generator.model not in self.prices and not free:
            raise UserError(
                f"The budget is in money but {generator.model!r} has no price; list the model in prices, with 0 if "
                "it costs nothing, or give a budget in calls or tokens."
            )
        self._recorded.append(_Recorded(self, generator))
        return self._recorded[-1]

    def find(self, key: bytes) -> Completion | None:
        """What is recorded of a request, or None if it has to be asked. An answer anywhere goes before a failure."""
        failed = None
        for connection, selection in self._readers:
            try:
                row = connection.execute(selection, (key,)).fetchone()
            except sqlite3.Error as error:
                raise _explained(error, self.path) from error
            if row is not None and row[5] is None:
                return Completion(*row[:7])
            failed = failed or row
        if failed is None:
            return None
        *answer, created, final = failed
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
        price: Price = Price(),
        estimated: bool = False,
    ) -> None:
        """Commit one answer, or one failure."""
        tokens = completion.prompt_tokens, completion.completion_tokens
        cost, attempts = price.of(*tokens), completion.attempts
        answer = (completion.text, completion.model, *tokens, completion.finish_reason, completion.error)
        row = (key, role, *answer, seconds, time.time(), cost, attempts, estimated, 0)
        try:
            if key in self._asked_again:
                self._replace_failure(key, row)
            else:
                self._connection.execute(_INSERT, row)
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error
        self.calls, self.tokens, self.cost = self.calls + 1, self.tokens + sum(tokens), self.cost + cost

        if completion.error is not None:
            self._failed.add(key)

    def conclude(self) -> None:
        """Call it at the end of a run that was not stopped: the last refusals are final, too, where they are few."""
        for recorded in self._recorded:
            recorded.conclude()

    def _make_final(self, keys: Iterable[bytes]) -> None:
        try:
            self._connection.executemany(
                "UPDATE calls SET final = 1 WHERE key = ? AND error IS NOT NULL", [(key,) for key in keys]
            )
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error

    def _has_answered(self, role: str, model: str) -> bool:
        found = "SELECT 1 FROM calls WHERE error IS NULL AND role = ? AND model = ? LIMIT 1"
        return self._connection.execute(found, (role, model)).fetchone() is not None

    def _replace_failure(self, key: bytes, row: tuple) -> None:
        with _transaction(self._connection):
            self._connection.execute(
                f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {_NAMES} FROM calls WHERE key = ?", (key,)
            )
            self._connection.execute(_INSERT, row)

    def totals(self) -> dict[str, Totals]:
        """Totals by role, roles in alphabetical order."""
        source = _PURCHASES.format(f"role, error, prompt_tokens, completion_tokens, seconds, {', '.join(_ADDED)}")
        rows = self._connection.execute(
            "SELECT role, COUNT(*), COUNT(error), SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds), "
            f"SUM(cost), SUM(attempts), SUM(estimated) FROM {source} GROUP BY role ORDER BY role"
        )
        return {role: Totals(*sums) for role, *sums in rows}

    def failures(self) -> list[tuple[str, bool]]:
        """Why calls failed that this run asked for, and of each whether it is final."""
        found = "SELECT key, error, final FROM calls WHERE error IS NOT NULL AND "
        rows = self._connection.execute(f"{found} created >= ?", (self.since,)).fetchall()
        rows += [row for key in self._failed for row in self._connection.execute(f"{found} key = ?", (key,))]
        return [(error, bool(final)) for error, final in {key: rest for key, *rest in rows}.values()]

    def _spent(self) -> Amounts:
        source = _PURCHASES.format("prompt_tokens + completion_tokens AS tokens, cost")
        statement = f"SELECT COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(cost), 0.0) FROM {source}"
        try:
            return self._connection.execute(statement).fetchone()
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error

    def merge(self, paths: Iterable[str | Path]) -> None:
        """Add the records of other ledgers, such as one of each process. Merging the same twice changes nothing.

        Where both hold the same request an answer stays over a failure, a newer failure over an older one, and of two
        answers the one that is here already; what gives way still counts as spent.

        Raises:
            UserError: One of them is missing, no ledger, or held by another process.
        """
        for path in map(Path, paths):
            if path.resolve() == self.path.resolve():
                continue
            _existing(path)
            _open(path).close()  # Refuses what is no ledger, and migrates what is old.
            try:
                self._connection.execute("ATTACH ? AS other", (str(path),))
                try:
                    with _transaction(self._connection):
                        for statement in _MERGE:
                            self._connection.execute(statement)
                finally:
                    self._connection.execute("DETACH other")
            except sqlite3.Error as error:
                raise _explained(error, self.path) from error
        self.calls, self.tokens, self.cost = self._spent()

    @property
    def identity(self) -> str:
        """A random name that the file keeps, whatever it is called."""
        self._identify(None, None)
        return self._connection.execute("SELECT id FROM identity").fetchone()[0]

    def belong_to(self, identity: str, rank: int) -> None:
        """Record that this is the part of a process of a launch whose ledger has that identity."""
        self._identify(identity, rank)

    def _identify(self, *owner: object) -> None:
        row = (secrets.token_hex(16), *owner)
        with _transaction(self._connection):
            self._connection.execute(_IDENTITY)
            self._connection.execute(
                "INSERT INTO identity SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM identity)", row
            )

    async def settle(self, seconds: float | None = SETTLE_SECONDS) -> None:
        """Let what is under way end and be recorded; within `seconds`, if given, and then nothing more is sent."""
        waiting = (getattr(recorded.generator, "waiting", ()) for recorded in self._recorded)
        await self._purchases.settle(seconds, () if seconds is None else set().union(*waiting))

    def close(self, seconds: float | None = None) -> None:
        """Settle, see there, and close the file."""
        if self._purchases.in_shared_loop():
            run_async(self.settle(seconds))
        for connection, _ in self._readers:
            connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        pressing = kind is not None and not issubclass(kind, Stopped)
        self.close(SETTLE_SECONDS if pressing else None)


# `a` is what is here, `b` what comes in; "wins" is when what comes in replaces what is here.
_WINS = "a.error IS NOT NULL AND (b.error IS NULL OR b.created > a.created)"
_MERGE = (
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {_NAMES} FROM other.superseded",
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {', '.join(f'b.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b JOIN main.calls a ON a.key = b.key WHERE NOT ({_WINS})",
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {', '.join(f'a.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b JOIN main.calls a ON a.key = b.key WHERE {_WINS}",
    f"INSERT OR REPLACE INTO calls ({_NAMES}) SELECT {', '.join(f'b.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b LEFT JOIN main.calls a ON a.key = b.key WHERE a.key IS NULL OR ({_WINS})",
    # One and the same purchase, met in both files, is counted once.
    f"DELETE FROM superseded AS b WHERE EXISTS (SELECT 1 FROM main.calls a WHERE {_SAME})",
)


class _Desk:
    """What calls in flight may yet cost, held against the budget."""

    def __init__(self, budget: Budget):
        self.limits = vars(budget)
        self.limited = budget != Budget()
        self._in_flight, self._held = 0, (0, 0, 0.0)
        self._freed: asyncio.Future[None] | None = None

    def hold(self, spent: Amounts, most: Amounts) -> bool:
        """Set aside `most`, what a purchase may take; False if it has to wait for one in flight.

        Raises:
            BudgetExhausted: It might exceed the budget, and nothing is in flight that could still come out cheaper.
        """
        held = tuple(map(operator.add, self._held, most))
        for (name, limit), so_far, reserved, more in zip(self.limits.items(), spent, held, most):
            if limit is not None and so_far + reserved > limit * (1 + 1e-9):  # Sums of money are rounded.
                if self._in_flight:
                    return False
                raise BudgetExhausted(
                    f"The budget of {limit:,} {name} is spent: {so_far:,.12g} so far, and the next call may take "
                    f"{more:,.6g}; run again with a higher budget_{name} to go on where this stopped."
                )
        self._in_flight, self._held = self._in_flight + 1, held
        return True

    def release(self, most: Amounts) -> None:
        self._in_flight -= 1
        self._held = tuple(map(operator.sub, self._held, most)) if self._in_flight else (0, 0, 0.0)
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)
        self._freed = None

    async def room(self) -> None:
        """Returns when a purchase in flight has ended."""
        if self._freed is None:
            self._freed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._freed)


class _Recorded:
    def __init__(self, ledger: Ledger, generator: Generator):
        self.ledger, self.generator, self.model = ledger, generator, generator.model
        self.immediate = getattr(generator, "immediate", False)
        self.concurrency = getattr(generator, "concurrency", math.inf)
        self.price = ledger.prices.get(generator.model, Price())
        # By role and kind: when requests were refused, and their keys, as long as none sent later was answered.
        self._in_doubt: dict[tuple[str, str], list[tuple[float, bytes]]] = {}

    async def __call__(self, request: Request) -> Completion:
        ledger, key = self.ledger, request_key(request, self.model)
        while True:
            if (twin := ledger._in_flight.get(key)) is not None:
                await asyncio.wait([twin])
                if not twin.cancelled():
                    return twin.result()
                continue
            if (known := ledger.find(key)) is not None:
                ledger.replayed += 1
                return known
            most = self._most(request) if ledger._desk.limited else None
            if most is None or ledger._desk.hold((ledger.calls, ledger.tokens, ledger.cost), most):
                return await self._buy(key, request, most)
            await ledger._desk.room()

    async def settle(self, seconds: float | None) -> None:
        """See `Ledger.settle`."""
        await self.ledger.settle(seconds)

    async def _buy(self, key: bytes, request: Request, most: Amounts | None) -> Completion:
        if self.immediate:  # Nothing can come between question and answer, so no twin can be in flight.
            try:
                return await self._ask(key, request)
            finally:
                self._bought(key, most)
        # A task of its own: whoever waits for the answer may be cancelled, but it is paid for.
        purchase = self.ledger._purchases.start(self._ask(key, request))
        self.ledger._in_flight[key] = purchase
        purchase.add_done_callback(lambda _: self._bought(key, most))
        return await asyncio.shield(purchase)

    def _bought(self, key: bytes, most: Amounts | None) -> None:
        self.ledger._in_flight.pop(key, None)
        if most is not None:
            self.ledger._desk.release(most)

    async def _ask(self, key: bytes, request: Request) -> Completion:
        started = time.monotonic()
        completion = await self.generator(request)
        seconds = time.monotonic() - started
        silent = completion.text and not (completion.prompt_tokens or completion.completion_tokens or self.immediate)
        if silent:
            prompt, answer = _bytes(request) // 4 + 1, len(completion.text.encode("utf-8", "replace")) // 4 + 1
            completion = replace(completion, prompt_tokens=prompt, completion_tokens=answer)
        self.ledger.write(key, request.role, completion, seconds, self.price, bool(silent))
        self._doubt((request.role, request.kind), key, completion, started)
        return completion

    def _doubt(self, kind: tuple[str, str], key: bytes, completion: Completion, sent: float) -> None:
        """Note a refusal; or, at an answer, find those final that had come before it was asked for."""
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

    def _most(self, request: Request) -> Amounts:
        # A token is at least a byte long; a chat template adds a few to each message.
        prompt = _bytes(request) + 8 * len(request.messages) + 32
        answer = request.sampling.max_tokens
        return 1, prompt + answer, self.price.of(prompt, answer)


def _bytes(request: Request) -> int:
    return sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)


def _open(path: Path) -> sqlite3.Connection:
    """A connection that holds the file for this process alone."""
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        # Exclusive: two processes would each buy what the other has already paid for.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        _check(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing by it; and 40 MB between checkpoints cost a third less than the default 4.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=10000")
        _migrate(connection)
    except (sqlite3.Error, UserError) as error:
        if connection is not None:
            connection.close()
        raise (error if isinstance(error, UserError) else _explained(error, path)) from error
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """UserError unless the file is empty or a ledger that this version can read."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    if tables and not {"key", "role", "seconds", "created", *_ANSWER.split(", ")} <= columns:
        raise UserError(f"{path} is not a ledger (an SQLite file of something else); give another path.")
    if version > VERSION:
        raise UserError(
            f"The ledger {path} is of version {version}, this teamsrl-hf writes {VERSION}; install a newer teamsrl-hf."
        )


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    with _transaction(connection):
        for table, columns in _SCHEMA.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name in _ADDED.keys() - present:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {_ADDED[name]}")
        connection.execute(f"PRAGMA user_version={VERSION}")


def _open_to_read(path: Path) -> sqlite3.Connection:
    _existing(path)
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        # Not mode=ro: what a killed process left in its write-ahead log has to be brought in first.
        connection.execute("PRAGMA query_only=ON")
        _check(connection, path)
        connection.execute("SELECT 1 FROM calls").fetchone()
    except (sqlite3.Error, UserError) as error:
        connection.close()
        raise (error if isinstance(error, UserError) else _explained(error, path)) from error
    return connection


def identity_of(path: Path) -> str | None:
    """The identity of the ledger in a file, or None if it was never asked for one.

    Raises:
        UserError: The file is held by another process, or is no ledger.
    """
    with closing(_open_to_read(path)) as connection:
        return _identity_row(connection)[0]


def owner_of(path: Path) -> tuple[str | None, int | None]:
    """Of which ledger a file is a part, and of which rank; nothing where that can't be told. Leaves no trace there."""
    if not path.is_file():
        return None, None
    # As it stands in the main file: to bring in a write-ahead log would change a file that may be another run's.
    name = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(name, uri=True)) as connection:
        return _identity_row(connection)[1:]


def _identity_row(connection: sqlite3.Connection) -> tuple[str | None, str | None, int | None]:
    try:
        return connection.execute("SELECT id, part_of, rank FROM identity").fetchone() or (None, None, None)
    except sqlite3.DatabaseError:  # No such table, or no SQLite file at all.
        return None, None, None


def _selection(connection: sqlite3.Connection) -> str:
    """The statement that finds, by key, the fields of a `Completion`, when it was recorded, and if it is final."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    attempts, final = (name if name in present else default for name, default in (("attempts", "1"), ("final", "0")))
    return f"SELECT {_ANSWER}, {attempts}, created, {final} FROM calls WHERE key = ?"


def _existing(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no ledger at {path}; check the path.")


@contextmanager
def _transaction(connection: sqlite3.Connection):
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # A full disk has already rolled it back.
            connection.execute("ROLLBACK")
        raise


def _explained(error: sqlite3.Error, path: Path) -> Exception:
    message = str(error)
    if "locked" in message:
        return UserError(f"The ledger {path} is in use by another process; wait for it or stop it, then run again.")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in message:
        return UserError(f"{path} is not a ledger (not an SQLite file); move it away and run again.")
    if "malformed" in message:
        return UserError(f"The ledger {path} is damaged ({message}); put back a copy, or move it away to start anew.")
    return OSError(f"The ledger {path} can't be written ({message}). Make room or mend its folder, then run again.")
