"""SQLite record of every model call: an answer is committed before anyone sees it, and is never asked for again.

In goes a `Generator`, out comes one with memory. A run that was killed replays what it already paid for from here.
"""

import asyncio
import hashlib
import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .generation import Completion, Generator, Request

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key BLOB PRIMARY KEY, role TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, error TEXT, seconds REAL NOT NULL, created REAL
    NOT NULL
)"""
_ANSWER = "text, model, prompt_tokens, completion_tokens, finish_reason, error"


@dataclass(frozen=True)
class Totals:
    """Sums over the calls of one role. `seconds` is time spent waiting for answers, not wall time."""

    calls: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def request_key(request: Request, model: str) -> bytes:
    """16 bytes that differ whenever anything does that could change the answer."""
    content = [request.role, model, request.messages, asdict(request.sampling), request.sample_index]
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).digest()


class Ledger:
    """The record of one run, in one file.

    Args:
        path: SQLite file, made if missing. One process at a time may hold it.
        retry_errors: Ask again for calls that are recorded as failed; by default a failure is replayed like an answer.

    Raises:
        ValueError: The file is held by another process, or is no ledger.
        OSError: The record can't be written (disk full, read-only).
    """

    def __init__(self, path: str | Path, retry_errors: bool = False):
        self.path = Path(path)
        self.retry_errors = retry_errors
        self.replayed = 0
        self._in_flight: dict[bytes, asyncio.Future[Completion]] = {}
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=0.2, isolation_level=None, check_same_thread=False)
            # Exclusive: two processes would each buy what the other has already paid for.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _explained(error, self.path) from error
        return connection

    def record(self, generator: Generator) -> Generator:
        """The generator with memory: answered requests are replayed, new ones recorded, twins in flight share one."""
        return _Recorded(self, generator)

    def find(self, key: bytes) -> Completion | None:
        """The recorded answer to a request, if there is one that counts."""
        row = self._connection.execute(f"SELECT {_ANSWER} FROM calls WHERE key = ?", (key,)).fetchone()
        if row is None or (self.retry_errors and row[-1] is not None):
            return None
        return Completion(*row)

    def write(self, key: bytes, role: str, completion: Completion, seconds: float) -> None:
        """Commit one answer."""
        row = (key, role, *(getattr(completion, name) for name in _ANSWER.split(", ")), seconds, time.time())
        try:
            self._connection.execute(
                f"INSERT OR REPLACE INTO calls (key, role, {_ANSWER}, seconds, created) VALUES (?,?,?,?,?,?,?,?,?,?)",
                row,
            )
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error

    def totals(self) -> dict[str, Totals]:
        """Totals by role, roles in alphabetical order."""
        rows = self._connection.execute(
            "SELECT role, COUNT(*), COUNT(error), SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds) FROM calls "
            "GROUP BY role ORDER BY role"
        )
        return {role: Totals(*sums) for role, *sums in rows}

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Recorded:
    def __init__(self, ledger: Ledger, generator: Generator):
        self.ledger, self.generator, self.model = ledger, generator, generator.model
        self.immediate = getattr(generator, "immediate", False)

    async def __call__(self, request: Request) -> Completion:
        key = request_key(request, self.model)
        if key in self.ledger._in_flight:
            return await asyncio.shield(self.ledger._in_flight[key])
        known = self.ledger.find(key)
        if known is not None:
            self.ledger.replayed += 1
            return known
        if self.immediate:  # Nothing can come between question and answer, so no twin can be in flight.
            return await self._ask(key, request)
        answer = asyncio.get_running_loop().create_future()
        self.ledger._in_flight[key] = answer
        try:
            completion = await self._ask(key, request)
            answer.set_result(completion)
            return completion
        except BaseException as error:
            answer.set_exception(error)
            answer.exception()  # Marked as seen: without a twin waiting, nobody else will look.
            raise
        finally:
            del self.ledger._in_flight[key]

    async def _ask(self, key: bytes, request: Request) -> Completion:
        started = time.monotonic()
        completion = await self.generator(request)
        self.ledger.write(key, request.role, completion, time.monotonic() - started)
        return completion


def _explained(error: sqlite3.Error, path: Path) -> Exception:
    message = str(error)
    if "locked" in message:
        return ValueError(f"The ledger {path} is in use by another process; wait for it or stop it, then run again.")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in message:
        return ValueError(f"{path} is not a ledger (not an SQLite file); move it away and run again.")
    return OSError(f"The ledger {path} can't be written ({message}). Make room or mend its folder, then run again.")
