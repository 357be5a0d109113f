"""Work that overlaps: in go items and an async function, out come its results in the items' order, no call lost."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
# Seconds between two deliveries of results: handling several in a row takes a tenth less time, and new work need not
# wait for each of them.
BURST = 0.01


async def in_order(
    function: Callable[[Item], Awaitable[Made]], items: AsyncIterable[Item], concurrency: int
) -> AsyncGenerator[Made]:
    """Apply `function` to `items`, up to `concurrency` at once, and yield results in the order of the items.

    A slow item delays only results that are more than 4096 items, or 64 times `concurrency`, behind it. While items
    are left to start, results come several at a time, see `BURST`. After a failure no further item is taken; the
    results before it are still yielded, then its error is raised.
    """
    free = asyncio.Semaphore(concurrency)
    waiting: deque[asyncio.Task[Made]] = deque()
    window = max(4096, 64 * concurrency)
    failed, next_burst, clock = False, 0.0, asyncio.get_running_loop().time

    async def one(item: Item) -> Made:
        nonlocal failed
        try:
            return await function(item)
        except BaseException:
            failed = True
            raise
        finally:
            free.release()

    try:
        async for item in items:
            await free.acquire()
            if failed:
                break
            waiting.append(asyncio.create_task(one(item)))
            if clock() < next_burst and len(waiting) < window:
                continue
            while waiting and (waiting[0].done() or len(waiting) >= window):
                yield await waiting.popleft()
            next_burst = clock() + BURST
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def each(items: Iterable[Item]) -> AsyncGenerator[Item]:
    """Items one by one, as `in_order` takes them."""
    for item in items:
        yield item


async def close(stream: AsyncGenerator) -> None:
    """Close a stream, once it has stopped running: until then an interrupted one can't be closed."""
    while getattr(stream, "ag_running", False):
        await asyncio.sleep(0.01)
    await stream.aclose()


async def in_batches(
    stream: AsyncGenerator[Made], linger: float = 0.005, most: int = 256
) -> AsyncGenerator[list[Made]]:
    """The items of a stream in lists: those that come within `linger` seconds of the first, at most `most` of them.

    To hand a list to another thread takes no longer than to hand over one item.
    """
    batch: list[Made] = []
    new, room = asyncio.Event(), asyncio.Event()

    async def pull() -> None:
        async with aclosing(stream):
            async for made in stream:
                batch.append(made)
                new.set()
                if len(batch) >= most:
                    room.clear()
                    await room.wait()

    task = asyncio.create_task(pull())
    task.add_done_callback(lambda _: new.set())
    try:
        while not task.done() or batch:
            await new.wait()
            if not task.done() and len(batch) < most:
                await asyncio.sleep(linger)
            new.clear()
            taken, batch[:] = batch[:], []
            room.set()
            if taken:
                yield taken
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def together(coroutines: Sequence[Coroutine[Any, Any, Made]], at_once: bool = False) -> list[Made]:
    """Results of coroutines that run concurrently; if one fails, the others are cancelled before its error is raised.

    Args:
        at_once: None of them ever waits, so they run one after the other, without tasks.
    """
    if at_once or len(coroutines) < 2:
        try:
            return [await coroutine for coroutine in coroutines]
        finally:
            for coroutine in coroutines:
                coroutine.close()  # Has an effect only on those that were not awaited because of an error.
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
