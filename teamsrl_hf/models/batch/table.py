"""What a ledger knows of its batches: each stage is written down before the call that follows it.

A shard is a part of the requests that waited together, sent as one batch. It is `uploading`, then `creating` with the
id of its file, then `created` with the id of its batch, and `closed` once its answers are in the ledger, or once it is
certain that it never became a batch.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ...types import Name
from ..budget import Amounts

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS batches (shard TEXT PRIMARY KEY, account TEXT NOT NULL, model TEXT NOT NULL, "
    "stage TEXT NOT NULL, file_id TEXT, batch_id TEXT, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, "
    "cost REAL NOT NULL, created REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS batch_lines (shard TEXT, key BLOB, role TEXT NOT NULL, prompt INTEGER NOT NULL, "
    "answer INTEGER NOT NULL, PRIMARY KEY (shard, key)) WITHOUT ROWID",
)
MERGE = tuple(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}" for table in ("batches", "batch_lines"))


class Stage(Name):
    """How far a shard has come."""

    UPLOADING = "uploading"
    CREATING = "creating"
    CREATED = "created"
    CLOSED = "closed"


@dataclass(frozen=True)
class Shard:
    """A row of the table.

    Attributes:
        hash: Of its requests and its number; batches carry it as metadata.
        account: Hash of provider, address and key; the batch is of no use to any other.
        requests, tokens, cost: The most that it may take.
        created: Time as of `time.time`.
    """

    hash: str
    account: str
    model: str
    stage: Stage
    file_id: str | None
    batch_id: str | None
    requests: int
    tokens: int
    cost: float
    created: float

    @property
    def most(self) -> Amounts:
        return self.requests, self.tokens, self.cost


@dataclass(frozen=True)
class Place:
    """What a line of a shard is for: the role of its call, and the most tokens of its prompt and its answer."""

    role: str
    prompt: int
    answer: int


def add(connection: sqlite3.Connection, shard: Shard, places: Mapping[bytes, Place]) -> None:
    """Write down a new shard and the keys of its requests; call it inside a transaction."""
    values = [getattr(shard, one.name) for one in fields(shard)]
    connection.execute(f"INSERT INTO batches VALUES ({', '.join('?' * len(values))})", values)
    rows = [(shard.hash, key, place.role, place.prompt, place.answer) for key, place in places.items()]
    connection.executemany("INSERT INTO batch_lines VALUES (?, ?, ?, ?, ?)", rows)


def note(connection: sqlite3.Connection, shard: Shard) -> Shard:
    """Write down how far a shard has come, with the ids that are known by now."""
    connection.execute(
        "UPDATE batches SET stage = ?, file_id = ?, batch_id = ? WHERE shard = ?",
        (shard.stage, shard.file_id, shard.batch_id, shard.hash),
    )
    return shard


def close(connection: sqlite3.Connection, shard: str) -> None:
    """Nothing more is to come of a shard."""
    connection.execute("UPDATE batches SET stage = ? WHERE shard = ?", (Stage.CLOSED, shard))
    connection.execute("DELETE FROM batch_lines WHERE shard = ?", (shard,))


def outstanding(connection: sqlite3.Connection) -> list[Shard]:
    """The shards that are not closed, oldest first."""
    rows = connection.execute("SELECT * FROM batches WHERE stage != ? ORDER BY created, shard", (Stage.CLOSED,))
    return [_shard(row) for row in rows]


def known(connection: sqlite3.Connection) -> set[str]:
    """Ids of all batches of this ledger."""
    return {batch for (batch,) in connection.execute("SELECT batch_id FROM batches WHERE batch_id IS NOT NULL")}


def given_up(connection: sqlite3.Connection) -> set[str]:
    """Shards that were closed because no batch was found for them."""
    rows = connection.execute("SELECT shard FROM batches WHERE stage = ? AND batch_id IS NULL", (Stage.CLOSED,))
    return {shard for (shard,) in rows}


def count(connection: sqlite3.Connection) -> int:
    """Number of shards so far."""
    return connection.execute("SELECT COUNT(*) FROM batches").fetchone()[0]


def places(connection: sqlite3.Connection, shard: str) -> dict[bytes, Place]:
    """The lines of a shard, by key."""
    rows = connection.execute("SELECT key, role, prompt, answer FROM batch_lines WHERE shard = ?", (shard,))
    return {key: Place(*rest) for key, *rest in rows}


def _shard(row: Sequence) -> Shard:
    name, account, model, stage, *rest = row
    return Shard(name, account, model, Stage(stage), *rest)
