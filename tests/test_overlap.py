import asyncio
from contextlib import aclosing

import pytest

from teamsrl_hf import Request, Sampling
from teamsrl_hf.evolve.concurrency import in_batches, in_order, together

REQUEST = Request("expert", ({"role": "user", "content": "Why?"},), Sampling())


async def _numbers(count, taken=None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


def test_no_more_run_at_once_than_allowed_and_the_order_is_kept():
    running, peaks = [], []

    async def work(number):
        running.append(number)
        peaks.append(len(running))
        await asyncio.sleep(0.001 * (number % 3))
        running.remove(number)
        return number

    async def main():
        return [made async for made in in_order(work, _numbers(40), 4)]

    assert asyncio.run(main()) == list(range(40))
    assert max(peaks) == 4


def test_what_comes_before_a_failure_is_yielded_and_nothing_after_it_is_begun():
    taken, made = [], []

    async def work(number):
        await asyncio.sleep(0.02 if number == 0 else 0)
        if number == 3:
            raise ValueError("the third")
        return number

    async def main():
        async for number in in_order(work, _numbers(1000, taken), 4):
            made.append(number)

    with pytest.raises(ValueError, match="the third"):
        asyncio.run(main())
    assert made == [0, 1, 2]
    assert len(taken) < 12


def test_behind_a_slow_one_items_are_taken_only_so_far_ahead():
    taken = []

    async def work(number):
        await asyncio.sleep(60 if number == 0 else 0)

    async def first():
        async with aclosing(in_order(work, _numbers(100_000, taken), 2)) as made:
            await anext(made)

    async def main():
        waiting, before = asyncio.create_task(first()), -1
        while before != len(taken):  # Until no further item is taken.
            before = len(taken)
            await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    assert len(taken) == 4096


def test_results_are_handed_out_several_at_a_time_and_not_held_back():
    begun, seen = [], []

    async def work(number):
        begun.append(number)
        await asyncio.sleep(0.02 * (number >= 40))
        return number

    async def main():
        async for number in in_order(work, _numbers(60), 4):
            seen.append(len(begun) - number)

    asyncio.run(main())
    assert max(seen[1:40]) > 4  # Fast ones pile up for a moment, …
    assert max(seen[44:]) <= 8  # … slow ones are seen when the next has begun.


def test_a_stream_in_batches_loses_nothing_and_raises_at_its_end():
    async def stream():
        for number in range(1000):
            yield number
            if number % 300 == 0:
                await asyncio.sleep(0.01)
        raise ValueError("over")

    async def main():
        async for batch in in_batches(stream(), most=256):
            batches.append(batch)

    batches = []
    with pytest.raises(ValueError, match="over"):
        asyncio.run(main())
    assert [number for batch in batches for number in batch] == list(range(1000))
    assert max(map(len, batches)) <= 256
    assert len(batches) < 20


def test_a_stream_left_early_is_closed():
    closed = []

    async def stream():
        try:
            for number in range(10_000):
                yield number
        finally:
            closed.append(True)

    async def main():
        async with aclosing(in_batches(stream())) as batches:
            return await anext(batches)

    assert asyncio.run(main())[0] == 0
    assert closed == [True]


@pytest.mark.parametrize("at_once", [True, False])
def test_when_one_of_several_fails_none_of_the_others_is_left_behind(at_once, recwarn):
    ended = []

    async def work(number):
        try:
            if number == 1:
                raise ValueError("the second")
            await asyncio.sleep(0 if at_once else 30)
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="the second"):
        asyncio.run(together([work(number) for number in range(4)], at_once))
    assert sorted(ended) == ([0, 1] if at_once else [0, 1, 2, 3])
    assert [str(warning.message) for warning in recwarn] == []
