"""Work that overlaps: in go items and an async function, out come its results in the items' order, no call lost."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from typing import Any, TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")
# Seconds between two times that results are handed out: to deal with several in a row takes a tenth less time, and new
# work need not wait for each of them.
BURST = 0.01


async def in_order(
    function: Callable[[Item], Awaitable[Made]], items: AsyncIterable[Item], concurrency: int
) -> AsyncIterator[Made]:
    """Apply `function` to `items`, up to `concurrency` at once, and yield results in the order of the items.

    A slow one holds back only those behind it that are more than 4096, or 64 times `concurrency`, away. While there is
    more to begin, results come several at a time, see `BURST`. Once one has failed no further item is taken; those
    before it are still yielded, then its error is raised.
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


async def each(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Items one by one, as `in_order` takes them."""
    for item in items:
        yield item


async def close(stream: AsyncGenerator) -> None:
    """Close a stream; one that was interrupted has to come to rest before it can be closed."""
    while stream.ag_running:
        await asyncio.sleep(0.01)
    await stream.aclose()


async def in_batches(
    stream: AsyncGenerator[Made], linger: float = 0.005, most: int = 256
) -> AsyncIterator[list[Made]]:
    """What a stream gives, a list at a time: whatever came within `linger` seconds of the first, or `most` of them.

    Handing things to another thread takes as long for a list as for one of them.
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
    """Results of coroutines run side by side; when one fails the others are cancelled before its error is raised.

    Args:
        at_once: None of them ever waits, so that they may as well run one after the other, without tasks.
    """
    if at_once or len(coroutines) < 2:
        try:
            return [await coroutine for coroutine in coroutines]
        finally:
            for coroutine in coroutines:
                coroutine.close()  # Of no consequence but to those that an error kept from being awaited.
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
