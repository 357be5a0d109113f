"""The SQLite file of a ledger: a path goes in, out comes a connection to tables of this version, or a clear error."""

import hashlib
import json
import logging
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import UserError
from .base import Completion
from .batch import table as batch_table
from .budget import Price

logger = logging.getLogger(__name__)
_VERSION = 7
_ANSWER = "text, model, prompt_tokens, completion_tokens, finish_reason, error"
# Columns that earlier versions did not have, with the values for their calls.
_ADDED = {"cost": "REAL NOT NULL DEFAULT 0", "attempts": "INTEGER NOT NULL DEFAULT 1"}
_ADDED |= {"estimated": "INTEGER NOT NULL DEFAULT 0", "final": "INTEGER NOT NULL DEFAULT 0"}
_ADDED |= {"scores": "TEXT"}  # A JSON list, or NULL.
_ADDED |= {"checksum": "BLOB"}  # See `checksum`; NULL in calls of earlier versions.
_ADDED |= {"tier": "TEXT NOT NULL DEFAULT 'standard'"}  # See `types.Tier`.
# Parts of the tokens and of the cost: see `base.Completion`.
_ADDED |= {"cached_tokens": "INTEGER NOT NULL DEFAULT 0", "estimated_tokens": "INTEGER NOT NULL DEFAULT 0"}
_ADDED |= {"estimated_cost": "REAL NOT NULL DEFAULT 0"}
_NAMES = f"key, role, {_ANSWER}, seconds, created, {', '.join(_ADDED)}"
# The text is the last column, so that sums over the others need not read it.
_COLUMNS = """
    key BLOB, role TEXT NOT NULL, model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT
    NULL, finish_reason TEXT NOT NULL, error TEXT, seconds REAL NOT NULL, created REAL NOT NULL, {added}, text TEXT NOT
    NULL, PRIMARY KEY ({key})
""".replace("{added}", ", ".join(f"{name} {kind}" for name, kind in _ADDED.items()))
# Holds repeated failures, answers that two processes bought, and failed attempts of calls that have not ended: they
# count as spent, but are not replayed.
_SCHEMA = {
    "calls": _COLUMNS.replace("{key}", "key"),
    "superseded": _COLUMNS.replace("{key}", "key, created, seconds"),
}
# The file's identity, and the ledger it is a part of (see `parts`). Created on first use.
_IDENTITY = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL, part_of TEXT, rank INTEGER)"
_INSERT = f"INSERT OR REPLACE INTO calls ({_NAMES}) VALUES ({', '.join('?' * len(_NAMES.split(', ')))})"
# The last fields of `ledger.Totals`.
_SUMMED = ("cost", "attempts", "estimated", "cached_tokens", "estimated_tokens", "estimated_cost")
_PURCHASES = "(SELECT {0} FROM calls UNION ALL SELECT {0} FROM superseded)"
_SAME = "a.key = b.key AND a.created = b.created AND a.seconds = b.seconds"
# `a` is a row of this ledger, `b` one of the other; `_WINS` is true if `b` replaces `a`.
_WINS = "a.error IS NOT NULL AND (b.error IS NULL OR b.created > a.created)"
_MERGE = (
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {_NAMES} FROM other.superseded",
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {', '.join(f'b.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b JOIN main.calls a ON a.key = b.key WHERE NOT ({_WINS})",
    f"INSERT OR IGNORE INTO superseded ({_NAMES}) SELECT {', '.join(f'a.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b JOIN main.calls a ON a.key = b.key WHERE {_WINS}",
    f"INSERT OR REPLACE INTO calls ({_NAMES}) SELECT {', '.join(f'b.{n}' for n in _NAMES.split(', '))} "
    f"FROM other.calls b LEFT JOIN main.calls a ON a.key = b.key WHERE a.key IS NULL OR ({_WINS})",
    # A purchase that is in both files is counted once.
    f"DELETE FROM superseded AS b WHERE EXISTS (SELECT 1 FROM main.calls a WHERE {_SAME})",
    *batch_table.MERGE,
)


class Spent(NamedTuple):
    """What calls took: their number, requests sent for them, tokens, money, and the part of it that is estimated."""

    calls: int
    attempts: int
    tokens: int
    cost: float
    estimated_cost: float


def open_to_write(path: Path) -> sqlite3.Connection:
    """A connection that holds the file for this process alone."""
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        # Exclusive: two processes would each buy what the other has already paid for.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        _check(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing; checkpoints every 40 MB cost a third less than at the default 4 MB.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=10000")
        if _migrate(connection):
            logger.info("The ledger %s was of an older version, and is now of version %d.", path, _VERSION)
    except (sqlite3.Error, UserError) as error:
        if connection is not None:
            connection.close()
        raise (error if isinstance(error, UserError) else explained(error, path)) from error
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """UserError unless the file is empty or a ledger that this version can read."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    if tables and not {"key", "role", "seconds", "created", *_ANSWER.split(", ")} <= columns:
        raise UserError(f"{path} is not a ledger (an SQLite file of something else); give another path.")
    if version > _VERSION:
        raise UserError(
            f"The ledger {path} is of version {version}, this teamsrl-hf writes {_VERSION}; "
            "install a newer teamsrl-hf."
        )


def _migrate(connection: sqlite3.Connection) -> bool:
    """Create missing tables and columns; returns whether the file was of an older version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == _VERSION:
        return False
    older = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone() is not None
    with transaction(connection):
        for table, columns in _SCHEMA.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name in _ADDED.keys() - present:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {_ADDED[name]}")
            if older and version < 7:  # Which part was estimated, nobody knows.
                all_of_it = "estimated_tokens = prompt_tokens + completion_tokens, estimated_cost = cost"
                connection.execute(f"UPDATE {table} SET {all_of_it} WHERE estimated")
        for statement in batch_table.SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={_VERSION}")
    return older


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes no record and lets other processes in; it needs no permission to write."""
    _existing(path)
    connection = None
    try:
        connection = _reader(path)
        connection.execute("PRAGMA query_only=ON")
        _check(connection, path)
        connection.execute("SELECT 1 FROM calls").fetchone()
    except (sqlite3.Error, UserError) as error:
        if connection is not None:
            connection.close()
        raise (error if isinstance(error, UserError) else explained(error, path)) from error
    return connection


def _reader(path: Path) -> sqlite3.Connection:
    log = path.with_name(f"{path.name}-wal")
    if _may_write(path):
        # Not mode=ro: SQLite first has to apply the write-ahead log that a killed process left.
        return sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    if not (log.is_file() and log.stat().st_size):
        name = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        return sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)
    # The log holds answers that the file lacks, and SQLite applies it only where it can write: to a copy.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, log):
            shutil.copyfile(file, Path(folder) / file.name)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copied:
            copied.backup(connection)
    return connection


def _may_write(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(place, os.W_OK, effective_ids=effective) for place in (path, path.parent))


def writable(path: Path, folder: Path) -> Path:
    """The path of a ledger, or of a copy in `folder` where this process may not write to it."""
    if _may_write(path):
        return path
    copy = folder / path.name
    with closing(open_to_read(path)) as connection, closing(sqlite3.connect(copy)) as target:
        connection.backup(target)
    return copy


def checksum(key: bytes, answer: Sequence[object]) -> bytes:
    """A hash of a recorded answer, 8 bytes: a disk or a hand that changes one is noticed.

    Args:
        key: The request's key.
        answer: The columns of `_ANSWER`, and `scores`.
    """
    content = json.dumps([str(value) if isinstance(value, str) else value for value in answer])
    return hashlib.blake2b(content.encode(), digest_size=8, key=key).digest()


def row_of(
    key: bytes, role: str, completion: Completion, seconds: float, created: float, price: Price
) -> tuple[tuple[object, ...], Spent]:
    """A call as a row, with the columns in the order of `_NAMES`, and what it takes."""
    tokens, tier, price = (
        (completion.prompt_tokens, completion.completion_tokens),
        completion.tier,
        price.at(completion.tier),
    )
    cost = price.of(*tokens, completion.cached_tokens)
    estimated_tokens, estimated_cost = sum(completion.estimated_tokens), price.of(*completion.estimated_tokens)
    answer = (completion.text, completion.model, *tokens, completion.finish_reason, completion.error)
    scores = json.dumps(completion.scores) if completion.scores else None
    about = seconds, created, cost, completion.attempts, estimated_tokens > 0, 0, scores
    parts = completion.cached_tokens, estimated_tokens, estimated_cost
    row = (key, role, *answer, *about, checksum(key, (*answer, scores)), tier, *parts)
    return row, Spent(1, completion.attempts, sum(tokens), cost, estimated_cost)


def insert(
    connection: sqlite3.Connection, row: Sequence[object], again: bool = False, begun: float | None = None
) -> None:
    """Record one call.

    Args:
        row: The columns in the order of `_NAMES`, of which the first is the key.
        again: Whether it takes the place of a failed call with this key, which still counts as spent.
        begun: The time of its record by `insert_unfinished`, which it replaces.
    """
    if not again and begun is None:
        connection.execute(_INSERT, row)
        return
    with transaction(connection):
        connection.execute("DELETE FROM superseded WHERE key = ? AND created = ? AND seconds = 0", (row[0], begun))
        if again:
            selected = f"SELECT {_NAMES} FROM calls WHERE key = ?"
            connection.execute(f"INSERT OR IGNORE INTO superseded ({_NAMES}) {selected}", (row[0],))
        connection.execute(_INSERT, row)


def insert_unfinished(connection: sqlite3.Connection, row: Sequence[object]) -> None:
    """Record what a call under way has cost by now, in place of an earlier such record; its `seconds` are 0."""
    connection.execute(_INSERT.replace("INTO calls", "INTO superseded"), row)


def insert_besides(connection: sqlite3.Connection, row: Sequence[object]) -> None:
    """Record a call that counts as spent and is not replayed; once more changes nothing."""
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT OR IGNORE INTO superseded ({_NAMES}) VALUES ({marks})", row)


def sums_by_role(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The role and the fields of `ledger.Totals`, for each role."""
    source = _PURCHASES.format(f"role, error, prompt_tokens, completion_tokens, seconds, {', '.join(_ADDED)}")
    more = ", ".join(f"SUM({name})" for name in _SUMMED)
    return connection.execute(
        "SELECT role, COUNT(*), COUNT(error), SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds), "
        f"{more} FROM {source} GROUP BY role ORDER BY role"
    ).fetchall()


def spent(connection: sqlite3.Connection) -> Spent:
    """What the calls over the file's whole life took."""
    source = _PURCHASES.format("attempts, prompt_tokens + completion_tokens AS tokens, cost, estimated_cost")
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in ("attempts", "tokens", "cost", "estimated_cost"))
    return Spent(*connection.execute(f"SELECT COUNT(*), {sums} FROM {source}").fetchone())


def spent_on(connection: sqlite3.Connection, key: bytes) -> tuple[int, int, int, float]:
    """Requests, prompt tokens, answer tokens and money of one call; nothing where it is not recorded."""
    found = "SELECT attempts, prompt_tokens, completion_tokens, cost FROM calls WHERE key = ?"
    return connection.execute(found, (key,)).fetchone() or (0, 0, 0, 0.0)


def identity_of(path: Path) -> str | None:
    """The identity of the ledger in a file, or None if it has none yet.

    Raises:
        UserError: Another process holds the file, or it is not a ledger.
    """
    with closing(open_to_read(path)) as connection:
        return _identity_row(connection)[0]


def owner_of(path: Path) -> tuple[str | None, int | None]:
    """The ledger that a file is a part of, and its rank; two None where that is unknown. Does not change the file."""
    if not path.is_file():
        return None, None
    # Reads the main file only: applying a write-ahead log would change a file that may belong to another run.
    name = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(name, uri=True)) as connection:
        return _identity_row(connection)[1:]


def _identity_row(connection: sqlite3.Connection) -> tuple[str | None, str | None, int | None]:
    try:
        return connection.execute("SELECT id, part_of, rank FROM identity").fetchone() or (None, None, None)
    except sqlite3.DatabaseError:  # No such table, or no SQLite file at all.
        return None, None, None


def selection(connection: sqlite3.Connection) -> str:
    """The statement that finds a call by key: fields of a `Completion`, `created`, `final`, `scores`, `checksum`."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    defaults = {"attempts": "1", "final": "0", "scores": "NULL", "checksum": "NULL"}
    attempts, final, scores, check = (name if name in present else default for name, default in defaults.items())
    return f"SELECT {_ANSWER}, {attempts}, created, {final}, {scores}, {check} FROM calls WHERE key = ?"


def is_damaged(key: bytes, row: Sequence[Any]) -> bool:
    """Whether a row that `selection` found does not have the checksum that it was recorded with."""
    *_, scores, recorded = row
    return recorded is not None and recorded != checksum(key, (*row[:6], scores))


def _existing(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no ledger at {path}; check the path.")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside take effect, or none; inside another one, together with it."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # A full disk has already rolled it back.
            connection.execute("ROLLBACK")
        raise


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Errors of SQLite become those of `explained`."""
    try:
        yield
    except sqlite3.Error as error:
        raise explained(error, path) from error


def explained(error: sqlite3.Error, path: Path) -> Exception:
    """An error of SQLite in the words of a user."""
    message = str(error)
    if "locked" in message:
        return UserError(f"The ledger {path} is in use by another process; wait for it or stop it, then run again.")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in message:
        return UserError(f"{path} is not a ledger (not an SQLite file); move it away and run again.")
    if "malformed" in message:
        return UserError(f"The ledger {path} is damaged ({message}); put back a copy, or move it away to start over.")
    return OSError(f"The ledger {path} can't be written ({message}). Make room or mend its folder, then run again.")


def identity(connection: sqlite3.Connection) -> str:
    """A random name that stays the same when the file is renamed."""
    identify(connection, None, None)
    return connection.execute("SELECT id FROM identity").fetchone()[0]


def identify(connection: sqlite3.Connection, part_of: str | None, rank: int | None) -> None:
    """Give the file an identity if it has none, with the ledger it is a part of."""
    row = (secrets.token_hex(16), part_of, rank)
    with transaction(connection):
        connection.execute(_IDENTITY)
        connection.execute("INSERT INTO identity SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM identity)", row)


def merge_file(connection: sqlite3.Connection, path: Path) -> None:
    """Take in the records of another ledger.

    Raises:
        UserError: It is missing, no ledger, or held by another process.
    """
    _existing(path)
    open_to_write(path).close()  # Refuses what is no ledger, and migrates what is old.
    connection.execute("ATTACH ? AS other", (str(path),))
    try:
        with transaction(connection):
            for statement in _MERGE:
                connection.execute(statement)
    finally:
        connection.execute("DETACH other")
