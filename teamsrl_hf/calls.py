"""Run coroutines from ordinary code, and wait for calls in flight when a run is interrupted."""

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

Result = TypeVar("Result")
# Calls in flight get this long to end after an interruption; the process ends within five seconds.
SETTLE_SECONDS = 3.0


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="teamsrl-calls", daemon=True).start()
    atexit.register(_close_connections, loop)
    return loop


def _close_connections(loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections that clients still hold; otherwise aiohttp warns when Python ends."""
    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(1)


def run_async(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine from ordinary code, even if an event loop is already running (in a notebook).

    All calls share one loop in a daemon thread, since a client's connections belong to the loop that opened them.
    """
    task: list[asyncio.Task] = []
    stopped = False

    async def run() -> Result:
        current = asyncio.current_task()
        assert current is not None
        task.append(current)
        if stopped:
            raise asyncio.CancelledError
        return await coroutine

    try:
        return asyncio.run_coroutine_threadsafe(run(), _loop()).result()
    except KeyboardInterrupt:
        # Not future.cancel(): the interrupt may have come when there was no future yet, but a task soon to start.
        stopped = True
        _loop().call_soon_threadsafe(lambda: [running.cancel() for running in task])
        raise


class CallsInFlight:
    """Calls that continue when their caller is cancelled: a sent request is paid for, so its answer is recorded."""

    def __init__(self):
        self._tasks: set[asyncio.Task] = set()

    def start(self, call: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Start the call as its own task; await it under `asyncio.shield`."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settle(self, seconds: float | None, unsent: Iterable[asyncio.Task] = ()) -> None:
        """Cancel the `unsent` calls, wait at most `seconds` for the others, then cancel those that are left."""
        for task in self._tasks.intersection(unsent):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def in_shared_loop(self) -> bool:
        """Whether any call runs in the loop of `run_async`."""
        return any(task.get_loop() is _loop() for task in set(self._tasks))

    def _ended(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Marked as seen: whoever waited for it may be gone.
