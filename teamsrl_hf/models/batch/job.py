"""Batches as their providers tell of them: in goes JSON of either form, out come jobs and the results of lines.

A form is how a family of providers wants to be asked. There are two: `files`, OpenAI's, which others speak too, and
`messages`, Anthropic's. They differ in data and in a few functions from JSON to JSON, which a `Form` holds.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Json = Mapping[str, Any]


class State(Enum):
    """What a batch may still do. A `FAILED` one was refused as a whole, so that nothing of it was bought."""

    RUNNING = 1
    COMPLETED = 2
    EXPIRED = 3
    CANCELLED = 4
    FAILED = 5
    UNKNOWN = 6


@dataclass(frozen=True)
class Job:
    """A batch at a provider.

    Attributes:
        status: The provider's word for its state.
        done, total: Requests that have ended, and all of them; 0 where the provider does not say.
        shard, file_id: What it was created with, where the provider tells.
        results: Paths from which its results can be read by now.
        problem: Why it failed.
        created: Time as of `time.time`; 0 where the provider does not say.
    """

    id: str
    status: str
    state: State
    done: int = 0
    total: int = 0
    shard: str | None = None
    file_id: str | None = None
    results: tuple[str, ...] = ()
    problem: str = ""
    created: float = 0.0


@dataclass(frozen=True)
class Result:
    """What became of one line: an HTTP status and a body, as of a call of its own; status 0: it was not run."""

    id: str
    status: int
    body: Json


@dataclass(frozen=True)
class Upload:
    """How a file is sent: the path, the fields of the form beside the file, and the field for its name, if any."""

    path: str
    fields: Mapping[str, str]
    name_field: str | None = None


@dataclass(frozen=True)
class Form:
    """How a family of providers is asked.

    Attributes:
        name: "files" or "messages".
        path: Path of batches below the base URL.
        upload: How files are sent; None where the requests travel with the creation.
        headers: Further headers of each call.
        key_header: Header that holds the bare key; None for `Authorization`.
        next_page: Name of the parameter with which a list goes on.
        marked: Whether a list tells which shard a job belongs to.
        body: From the body of a chat completion to that of one of these requests.
        line: A request, from its id and body.
        creation: What creates a batch, from the shard's hash, the id of its file, and its requests.
        read_job, read_result: From the provider's JSON.
    """

    name: str
    path: str
    upload: Upload | None
    headers: Mapping[str, str]
    key_header: str | None
    next_page: str
    marked: bool
    body: Callable[[dict[str, Any]], dict[str, Any]]
    line: Callable[[str, Json], dict[str, Any]]
    creation: Callable[[str, str | None, Sequence[Json]], dict[str, Any]]
    read_job: Callable[[Json], Job]
    read_result: Callable[[Json], Result]


def encode(lines: Sequence[Json]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def decode(content: bytes) -> list[Json]:
    """The objects in JSON lines.

    Raises:
        ValueError: A line is no JSON object: the content was cut.
    """
    lines = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("a line is no JSON object")
    return lines


def number(value: object) -> int:
    """A count, 0 where there is none."""
    return value if isinstance(value, int) and value > 0 else 0
