"""The calls of a provider's batch API: in go shards and ids, out come jobs and results, or why there are none.

All calls but the creation may be repeated, and are, until `max_wait` has passed without an answer. The creation is
sent once: whoever calls it has to find out what became of it.
"""

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

from ...errors import UserError
from ..wire.failure import Failure, read_refusal
from ..wire.transport import Line
from .job import Form, Job, Json, Result, decode, encode
from .table import Shard

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
# Most jobs of a page, and most pages that are searched for a batch.
_PAGE, _PAGES = 100, 50
CLOCKS = 86_400  # Seconds by which the provider's clock may be behind this one.
_PAUSES = 0.5, 30.0  # Seconds before the first repetition of a call, and at most.


class Service:
    """One account at one provider.

    Args:
        form: How it is asked.
        line: The way to it.
        poll: Seconds between two questions about a batch, at first.
        max_wait: Seconds without an answer after which a call fails.
    """

    def __init__(self, form: Form, line: Line, poll: float, max_wait: float):
        self.form, self.poll, self.max_wait = form, poll, max_wait
        self._line, self._random = line, random.Random()

    @property
    def where(self) -> str:
        """The base URL."""
        return self._line.address.base_url

    @property
    def variable(self) -> str:
        """The variable that holds the key, for messages."""
        return self._line.address.variable or "no variable"

    @property
    def account(self) -> str:
        """A hash of form, address and key.

        Raises:
            UserError: A variable of a header is not set, or no header can carry what a variable holds.
        """
        credentials = self._line.address.credentials()
        if isinstance(credentials, Failure):
            raise UserError(f"No batch can be sent: {credentials.reason}.")
        return hashlib.sha256(f"{self.form.name}|{self.where}|{credentials[1]}".encode()).hexdigest()[:12]

    @property
    def secrets(self) -> str:
        """The secrets that are sent, a line each, to redact them."""
        credentials = self._line.address.credentials()
        return "" if isinstance(credentials, Failure) else credentials[1]

    async def upload(self, name: str, requests: Sequence[Json]) -> str | Failure:
        """Send the file of a shard; returns its id."""
        import aiohttp

        upload, content = self.form.upload, encode(requests)
        assert upload is not None

        def form() -> dict[str, Any]:  # A form can be sent once only.
            named = {upload.name_field: name} if upload.name_field else {}
            data = aiohttp.FormData({**upload.fields, **named})
            data.add_field("file", content, filename=name, content_type="application/jsonl")
            return {"data": data}

        return await self._steadily("POST", upload.path, lambda body: str(json.loads(body)["id"]), content=form)

    async def create(self, shard: Shard, requests: Sequence[Json]) -> Job | Failure:
        """Create a batch. A failure may come although the batch was created."""
        body = self.form.creation(shard.hash, shard.file_id, requests)
        return await self._once("POST", self.form.path, self._job, content=lambda: {"json": body})

    async def get(self, batch_id: str) -> Job | Failure:
        """The batch with this id."""
        return await self._steadily("GET", self._path(batch_id), self._job)

    async def cancel(self, batch_id: str) -> Failure | None:
        """Have a batch cancelled, as far as it has not ended; returns why that failed, if it did."""
        done = await self._steadily("POST", f"{self._path(batch_id)}/cancel", lambda _: None)
        return done if isinstance(done, Failure) else None

    async def jobs(self, since: float) -> list[Job] | Failure:
        """The batches of this account, as far back as `since` (as of `time.time`), by whatever clock."""
        found: dict[str, Job] = {}
        query = {"limit": str(_PAGE)}
        for _ in range(_PAGES):
            page = await self._steadily("GET", self.form.path, self._page, query=query)
            if isinstance(page, Failure):
                return page
            jobs, more = page
            new = [job for job in jobs if job.id not in found]
            found |= {job.id: job for job in new}
            newest_first = jobs[0].created >= jobs[-1].created if jobs else False
            if not (more and new) or (newest_first and 0 < jobs[-1].created < since - CLOCKS):
                break
            query = {"limit": str(_PAGE), self.form.next_page: jobs[-1].id}
        return list(found.values())

    async def results(self, job: Job) -> list[Result] | Failure:
        """The results of all lines of a job that are there by now."""
        found: list[Result] = []
        for path in job.results:
            read = await self._steadily("GET", path, lambda body: [self.form.read_result(one) for one in decode(body)])
            if isinstance(read, Failure):
                return read
            found += read
        return found

    def _path(self, batch_id: str) -> str:
        return f"{self.form.path}/{quote(batch_id, safe='')}"

    def _job(self, body: bytes) -> Job:
        return self.form.read_job(json.loads(body))

    def _page(self, body: bytes) -> tuple[list[Job], bool]:
        answer = json.loads(body)
        jobs, more = (answer, False) if isinstance(answer, list) else (answer["data"], answer.get("has_more") is True)
        return [self.form.read_job(job) for job in jobs], more

    async def _steadily(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], Made],
        query: Mapping[str, str] | None = None,
        content: Callable[[], dict[str, Any]] = dict,
    ) -> Made | Failure:
        """Make a call that may be repeated."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self.max_wait, min(_PAUSES[0], self.poll)
        while True:
            made = await self._once(method, path, read, query, content)
            if not isinstance(made, Failure) or not made.retry:
                return made
            wait = max(pause * self._random.uniform(0.5, 1), made.retry_after)
            if loop.time() + wait > until:
                return replace(made, reason=f"{made.reason} (for {self.max_wait:g} s)")
            if pause >= 4:  # Short faults are nobody's concern.
                logger.warning("%s: %s; it is tried again", self.where, made.reason)
            await asyncio.sleep(wait)
            pause = min(2 * pause, _PAUSES[1])

    async def _once(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], Made],
        query: Mapping[str, str] | None = None,
        content: Callable[[], dict[str, Any]] = dict,
    ) -> Made | Failure:
        await self._line.open()
        reply = await self._line.exchange(method, f"{self.where}/{path}", self.form.headers, query, **content())
        if isinstance(reply, Failure):
            return reply
        if not 200 <= reply.status < 300:
            return read_refusal(reply.status, reply.headers, reply.body, reply.secrets, self.variable)
        try:
            return read(reply.body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return Failure(f"malformed answer to {method} {path}: {type(error).__name__}", retry=True, status=200)

    async def close(self) -> None:
        """Close the connections before the event loop ends."""
        await self._line.close()
