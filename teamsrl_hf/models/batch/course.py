"""The course of one shard, from wherever it stands to its results: in goes a shard, out comes what became of it.

Nothing here is bought twice. A batch is created once; where the answer to that is lost, or the process was killed, the
provider's list says what became of it. A batch that a proxy or a retry has created a second time is cancelled.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...errors import CallsRefused
from ..wire.failure import Failure
from . import table
from .job import Job, Json, Result, State
from .service import CLOCKS, Service
from .table import Shard, Stage

Made = TypeVar("Made")
logger = logging.getLogger(__name__)
# How often a list is searched, with a pause between, before a batch counts as never created.
_LOOKS = 3
_LONGEST_POLL = 10  # Times the first pause between two questions about a batch.
# Refusals of a whole batch because too much is under way: nothing was bought, and there is room later.
_BUSY = ("token_limit", "enqueued", "rate_limit", "too many")


@dataclass(frozen=True)
class Harvest:
    """What came of a shard: its batch, the results of its lines, and those of a second batch by mistake."""

    job: Job
    results: Sequence[Result]
    besides: Sequence[Result] = ()


class ResultsGone(CallsRefused):
    """A batch has ended and was probably billed, but its results can't be read."""


class Course:
    """Takes one shard to its end.

    Args:
        shard: Where it stands.
        service: The provider.
        connection: Of the ledger.
        requests: Its lines; None for a shard of an earlier run.
        keys: Ids of its lines.
        told: Called with the job whenever the provider has told of it.
    """

    def __init__(
        self,
        shard: Shard,
        service: Service,
        connection: sqlite3.Connection,
        requests: Mapping[str, Json] | None,
        keys: frozenset[str],
        told: Callable[[Job], None],
    ):
        self.shard, self._service, self._connection = shard, service, connection
        self._requests, self._keys, self._told = requests, keys, told

    async def run(self, cancel: bool = False) -> Harvest | None:
        """Go on to the end; None if it is certain that there is no batch.

        Args:
            cancel: Whether to have the batch cancelled first.

        Raises:
            CallsRefused: The provider refuses, or can't be reached; the same run goes on from here.
        """
        while True:
            job = await self._created(create=not cancel)
            if job is None:
                return None
            if cancel:
                await self._service.cancel(job.id)
            twins = await self._cancel_twins(job)
            job = await self._ended(job.id)
            if job.state is not State.FAILED or job.results:
                break
            await self._wait_for_room(job)
            if self._requests is None:
                return None
        besides: list[Result] = []
        for twin in twins:
            with suppress(ResultsGone):
                besides += await self._results(await self._ended(twin.id))
        return Harvest(job, await self._results(job), besides)

    async def _wait_for_room(self, job: Job) -> None:
        """Wait after a batch was refused as a whole, of which nothing was bought.

        Raises:
            CallsRefused: The reason does not pass by waiting.
        """
        if not any(word in job.problem.lower() for word in _BUSY):
            self._forget()
            raise CallsRefused(f"The batch {job.id} failed: {job.problem or job.status}. {_AGAIN}")
        self._note(stage=Stage.CREATING, batch_id=None)
        if self._requests is not None:
            logger.warning("The batch %s has to wait: %s", job.id, job.problem)
            await asyncio.sleep(self._service.poll * _LONGEST_POLL)

    async def _created(self, create: bool) -> Job | None:
        """The shard's batch, created unless there is one already."""
        if self.shard.batch_id is not None:
            return await self._get(self.shard.batch_id)
        if self.shard.stage is Stage.UPLOADING:
            if self._requests is None:
                return None  # No batch can come of a file alone.
            await self._upload()
        elif (job := await self._found(_LOOKS)) is not None or self._requests is None:
            return job
        pause, looks = self._service.poll, 0
        while create:
            answer = await self._service.create(self.shard, self._lines())
            if isinstance(answer, Job):
                return self._note_job(answer)
            if not answer.retry:
                self._forget()
                raise CallsRefused(f"{self._service.where} takes no batch: {answer.reason}. {_AGAIN}")
            logger.warning("%s: %s, when a batch was to be created", self._service.where, answer.reason)
            looks = 1 if answer.status == 429 else _LOOKS
            await asyncio.sleep(max(answer.retry_after, pause))
            pause = min(2 * pause, _LONGEST_POLL * self._service.poll)
            if (job := await self._found(looks)) is not None:
                return job
        return None

    async def _upload(self) -> None:
        file_id = None
        if self._service.form.upload is not None:
            file_id = await self._asked(
                lambda: self._service.upload(f"teamsrl-{self.shard.hash}.jsonl", self._lines())
            )
        self._note(stage=Stage.CREATING, file_id=file_id)

    def _lines(self) -> list[Json]:
        return [self._service.form.line(name, body) for name, body in (self._requests or {}).items()]

    def _note(self, **known: Any) -> None:
        self.shard = table.note(self._connection, replace(self.shard, **known))

    def _note_job(self, job: Job) -> Job:
        self._note(stage=Stage.CREATED, batch_id=job.id)
        return job

    def _forget(self) -> None:
        """The shard has no batch: a later run need not look for one."""
        table.close(self._connection, self.shard.hash)

    async def _found(self, looks: int) -> Job | None:
        """The shard's batch in the provider's list, if one is there."""
        for look in range(looks):
            if look:
                await asyncio.sleep(self._service.poll)
            jobs = await self._asked(lambda: self._service.jobs(self.shard.created))
            ours = [job for job in jobs if await self._is_ours(job)]
            if ours:
                return self._note_job(ours[-1])  # The oldest has come furthest.
        return None

    async def _is_ours(self, job: Job) -> bool:
        if job.state is State.FAILED and not job.results:
            return False
        if self._service.form.marked:
            return job.shard == self.shard.hash or (job.file_id is not None and job.file_id == self.shard.file_id)
        # This form's list tells nothing of ours: only the ids of the results show whose a batch is.
        if job.total != self.shard.requests or job.created < self.shard.created - CLOCKS:
            return False
        if job.id in table.known(self._connection):
            return False
        logger.info("The batch %s may be one that this ledger asked for; its results will tell.", job.id)
        return any(result.id in self._keys for result in await self._results(await self._ended(job.id)))

    async def _cancel_twins(self, job: Job) -> list[Job]:
        """Cancel batches that were created for this shard by mistake, or for one that no batch seemed to have."""
        if not self._service.form.marked:
            return []
        jobs = await self._service.jobs(self.shard.created)
        others = [] if isinstance(jobs, Failure) else [one for one in jobs if one.id != job.id]
        given_up = table.given_up(self._connection)
        twins = [one for one in others if one.shard in given_up or await self._is_ours(one)]
        for twin in twins:
            if twin.state is State.RUNNING:
                logger.warning("A batch like %s was created by mistake, %s; it is cancelled.", job.id, twin.id)
                await self._service.cancel(twin.id)
        return twins

    async def _ended(self, batch_id: str) -> Job:
        """Ask about a batch until it has ended, less often while nothing changes."""
        pause, before = self._service.poll, None
        while True:
            job = await self._get(batch_id)
            self._told(job)
            if job.state is State.UNKNOWN:
                raise CallsRefused(f"The batch {job.id} is {job.status!r}, which is no known status. {_AGAIN}")
            if job.state is not State.RUNNING:
                return job
            pause = self._service.poll if job != before else min(1.5 * pause, _LONGEST_POLL * self._service.poll)
            before = job
            await asyncio.sleep(pause)

    async def _results(self, job: Job) -> list[Result]:
        """The results of a job that has ended; some providers need a moment until they can be read.

        Raises:
            ResultsGone: They can't be read.
        """
        found: list[Result] = []
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(self._service.poll)
                job = await self._get(job.id)
            read = await self._service.results(job)
            if not isinstance(read, Failure):
                if job.state is not State.COMPLETED or self._keys <= {result.id for result in read}:
                    return read
                found = read
        if not self._keys.isdisjoint(result.id for result in found):
            return found
        why = read.reason if isinstance(read, Failure) else "none of them has the id of a request"
        raise ResultsGone(
            f"The batch {job.id} at {self._service.where} has ended ({job.status}), but its results can't be read: "
            f"{why}. Its {self.shard.requests:,} requests were probably billed. Run the same command again to try "
            "once more; with --retry_errors it gives these results up, books them, and asks again."
        )

    async def _get(self, batch_id: str) -> Job:
        return await self._asked(lambda: self._service.get(batch_id))

    async def _asked(self, call: Callable[[], Awaitable[Made | Failure]]) -> Made:
        """What a call gives.

        Raises:
            CallsRefused: It fails.
        """
        made = await call()
        if isinstance(made, Failure):
            raise CallsRefused(f"The batch API at {self._service.where} refuses: {made.reason}. {_AGAIN}")
        return made


_AGAIN = "Correct this and run the same command again; nothing is lost."
