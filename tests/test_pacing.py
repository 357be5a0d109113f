"""When requests may be sent, in an event loop whose clock jumps to the next timer instead of waiting for it."""

import asyncio
import itertools
import math

import pytest

from teamsrl_hf.models.pacing import Pace, Rate


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without waiting: when nobody is ready, its time is that of the next timer."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if self._scheduled and not self._ready:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


@pytest.fixture
def loop():
    loop = VirtualLoop()
    yield loop
    loop.close()


class Work:
    """Requests through a pace: `sent` holds the times of sending, `busy(time, in flight)` says which are refused."""

    def __init__(self, loop, pace, busy=lambda now, in_flight: False, latency=1.0, retry_after=0.0):
        self.loop, self.pace, self.busy, self.latency, self.retry_after = loop, pace, busy, latency, retry_after
        self.sent, self.refused, self.in_flight, self.most = [], [], 0, 0
        pace.move(loop)

    async def one(self, *size, used=None, share=1.0):
        again = False
        while True:
            turn = await self.pace.enter(*size, again=again)
            self.sent.append(self.loop.time())
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            busy = self.busy(self.loop.time(), self.in_flight)
            await asyncio.sleep(0.01 if busy else self.latency)
            self.in_flight -= 1
            if busy:
                self.refused.append(self.loop.time())
                self.pace.refused(turn, self.retry_after)
            else:
                self.pace.answered(turn, used, share)
            self.pace.leave(turn)
            if not busy:
                return self.loop.time()
            again = True

    def run(self, count, *size, **options):
        async def all_of_them():
            return await asyncio.gather(*(self.one(*size, **options) for _ in range(count)))

        return self.loop.run_until_complete(all_of_them())


def most_in_a_minute(times):
    return max(sum(start <= time < start + 60 for time in times) for start in times)


def test_an_idle_endpoint_gets_as_many_requests_at_once_as_concurrency_says(loop):
    work = Work(loop, Pace(5))
    ends = work.run(20)
    assert work.most == 5
    assert ends == [1.0] * 5 + [2.0] * 5 + [3.0] * 5 + [4.0] * 5


@pytest.mark.parametrize("rate", [30, 600, 3000])
def test_no_minute_holds_more_requests_than_the_rate_and_a_full_one_few_fewer(loop, rate):
    work = Work(loop, Pace(10_000, requests_per_minute=rate), latency=0.5)
    work.run(rate + rate // 2)
    ahead = range(len(work.sent) - rate)
    assert all(work.sent[i + rate] - work.sent[i] >= 60 for i in ahead)
    assert sum(time < 60 for time in work.sent) >= 0.98 * rate


def test_idle_time_is_not_saved_up(loop):
    pace = Pace(100, requests_per_minute=60)
    work = Work(loop, pace, latency=0.1)
    work.run(1)
    loop.now += 3600
    work.run(3)
    gaps = [after - before for before, after in itertools.pairwise(work.sent[1:])]
    assert all(0.85 < gap < 1.2 for gap in gaps), gaps


def test_tokens_are_counted_by_what_answers_turn_out_to_use(loop):
    # 100 of the prompt and 50 of 1000 allowed: 150 a request, 40 requests in each minute of 6000 tokens.
    work = Work(loop, Pace(1000, tokens_per_minute=6000), latency=1.0)
    ends = work.run(200, 100, 1000, used=150, share=0.05)
    # The first ones are taken to use all that they may; after that the rate is kept within a few in a hundred.
    later = [end for end in sorted(ends) if end > 120]
    spacing = (later[-1] - later[0]) / (len(later) - 1)
    assert 1.4 < spacing < 1.6
    assert most_in_a_minute(work.sent) <= 42


def test_a_request_larger_than_a_minute_s_tokens_is_sent_and_paid_off_afterwards(loop):
    work = Work(loop, Pace(10, tokens_per_minute=600), latency=0.1)
    work.run(2, 1200, 0, used=1200)
    assert work.sent[0] == 0
    assert 119 < work.sent[1] < 121


def test_in_an_outage_one_request_is_tried_at_a_time_and_all_go_on_after_it(loop):
    work = Work(loop, Pace(64), busy=lambda now, in_flight: now < 30, latency=0.05)
    ends = work.run(500)
    assert len(ends) == 500
    assert 64 <= len(work.refused) <= 64 + 15
    later = [time for time in work.refused if time > 1]
    assert all(after - before > 0.5 for before, after in itertools.pairwise(later)), later
    assert max(ends) < 40


def test_nobody_asks_again_before_the_endpoint_said_so(loop):
    work = Work(loop, Pace(8, pause=0.1), busy=lambda now, in_flight: now < 5, latency=0.05, retry_after=7.0)
    work.run(50)
    assert len(work.refused) == 8
    assert [time for time in work.sent if 0 < time < 7.01] == []


def test_an_overloaded_endpoint_is_asked_less_until_it_copes_and_then_more_again(loop):
    """An endpoint that takes 10 at once, and from the 60th second on any number."""
    pace = Pace(64, pause=0.5)
    work = Work(loop, pace, busy=lambda now, in_flight: now < 60 and in_flight > 10, latency=1.0)
    ends = work.run(2000)
    within = [end for end in ends if end < 60]
    assert len(work.refused) < 0.25 * len(within)
    # At most 10 a second could be answered; the sawtooth and its pauses cost a part of that.
    assert len(within) > 0.4 * 10 * 60
    assert work.most == 64
    late = [time for time in work.sent if time > 110]
    assert not late or max(ends) - 110 < 60


def test_one_burst_of_refusals_halves_the_places_once(loop):
    pace = Pace(32, pause=0.0)
    pace.move(loop)

    async def burst():
        turns = [await pace.enter() for _ in range(32)]
        for turn in turns:
            pace.refused(turn)
            pace.leave(turn)
        loop.now += 1
        turn = await pace.enter()
        loop.now += 1
        pace.answered(turn)
        pace.leave(turn)
        waiting = [asyncio.ensure_future(pace.enter()) for _ in range(32)]
        await asyncio.sleep(0)
        given = sum(place.done() for place in waiting)
        for place in waiting:
            place.cancel()
        return given

    assert loop.run_until_complete(burst()) == 16


def test_a_request_the_endpoint_never_takes_does_not_block_the_others(loop):
    pace = Pace(4, pause=0.5)
    work = Work(loop, pace, latency=0.1)

    async def never():
        turn = await pace.enter()
        while True:
            await asyncio.sleep(0.01)
            pace.refused(turn)
            pace.leave(turn)
            turn = await pace.enter(again=True)

    async def run():
        stuck = asyncio.ensure_future(never())
        await asyncio.gather(*(work.one() for _ in range(40)))
        stuck.cancel()
        return loop.time()

    assert loop.run_until_complete(run()) < 60


def test_whoever_is_cancelled_while_waiting_takes_no_place_with_him(loop):
    pace = Pace(1)
    pace.move(loop)

    async def run():
        first = await pace.enter()
        waiting = [asyncio.ensure_future(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # Before its turn came.
        pace.leave(first)
        waiting[1].cancel()  # After its turn was given, before it was taken.
        return await asyncio.gather(*waiting, return_exceptions=True)

    outcomes = loop.run_until_complete(asyncio.wait_for(run(), 5))
    assert [type(outcome).__name__ for outcome in outcomes] == ["CancelledError", "CancelledError", "Turn"]


def test_another_loop_starts_with_all_places_and_what_was_spent_stays_spent():
    pace = Pace(2, requests_per_minute=60)
    times = []
    for now in (100.0, 100.5):
        loop = VirtualLoop()
        loop.now = now
        pace.move(loop)
        loop.run_until_complete(pace.enter())  # Never given back: its loop has died.
        times.append(loop.now)
        loop.close()
    assert times[0] == 100.0
    assert 100.8 < times[1] < 101.1


def test_a_rate_of_one_a_minute_waits_a_minute():
    rate = Rate(1)
    assert rate.wait(-math.inf) == 0
    rate.spend(1, 10.0)
    assert rate.wait(10.0) == pytest.approx(60, abs=0.02)
