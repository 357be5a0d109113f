"""When a request may be sent: places in flight and rates go in, a turn for each request comes out.

All clocks are the event loop's, which is monotonic: setting the machine's clock changes nothing here.
"""

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass

from ..errors import CallsRefused

LONGEST_PAUSE = 5.0  # Seconds between trials of a busy endpoint, unless it asks for more itself.
_SLACK = 0.1  # Seconds of work that may be sent at once: timers are too coarse to space thousands a second evenly.


class Rate:
    """At most `per_minute` units in any minute, spread evenly. Times are seconds on a monotonic clock.

    >>> rate = Rate(60)
    >>> rate.spend(1, now=5.0)
    >>> round(rate.wait(5.0), 2), rate.wait(6.1)
    (0.9, 0.0)
    """

    def __init__(self, per_minute: float):
        self.seconds = (60 + 1.1 * _SLACK) / per_minute  # Longer for the slack, which a minute may hold on top.
        self._spent_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until more may be spent."""
        return max(0.0, self._spent_until - now - _SLACK)

    def spend(self, units: float, now: float) -> None:
        """Spend at `now`, more than is left if need be: the next ones wait for it."""
        self._spent_until = max(self._spent_until, now) + units * self.seconds

    def correct(self, units: float) -> None:
        """What was spent before turned out to be more by `units`, or less when negative."""
        self._spent_until += units * self.seconds


@dataclass(frozen=True, slots=True)
class Turn:
    """A place in flight: when it was given, and how many tokens it was expected to use."""

    at: float
    tokens: float


_Waiting = tuple[asyncio.Future[Turn], float, float]  # A place, and the tokens of its prompt and its answer.


class Pace:
    """Turns for requests to one endpoint, in one event loop at a time.

    Every turn that `enter` gives comes back by `leave`; its outcome, if any, is told before that, by `answered` or
    `refused`. A refusal (the endpoint is busy) halves the places in flight and pauses everybody: as long as the
    endpoint asks, or else for a time that doubles from `pause` up to `LONGEST_PAUSE`. Then one request per `pause` is
    tried until one is answered, and the places grow again, by one for each full round of answers, up to `concurrency`.
    What was sent before the last refusal was heard says nothing new: all refusals of one burst count as one.

    Args:
        concurrency: Most turns at once.
        requests_per_minute: None for no limit.
        tokens_per_minute: Tokens of prompts and answers; None for no limit. How long an answer will be is not known
            when its request is sent: it is taken to use as much of what it may as those before, and set right later.
        pause: Seconds.
    """

    def __init__(
        self,
        concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        pause: float = 1.0,
    ):
        self.concurrency, self.pause = concurrency, pause
        self._requests = Rate(requests_per_minute) if requests_per_minute else None
        self._tokens = Rate(tokens_per_minute) if tokens_per_minute else None
        self._used = 1.0  # Mean of the share of its max_tokens that an answer used.
        self._random = random.Random()  # Its own: jitter must not shift the random numbers of a training run.
        self._places = float(concurrency)
        self._refusals = 0  # In a row; above 0 the endpoint is being tried.
        self._in_flight = 0
        self._given_loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fresh: deque[_Waiting] = deque()
        self._again: deque[_Waiting] = deque()
        self._again_next = True
        self.answered_at = self._refused_at = self._paused_until = self._next_trial = -math.inf

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work in `loop` from now on: turns of another loop are forgotten, rates and what was learned stay."""
        if loop is self._given_loop:
            return
        self._given_loop, self._in_flight, self._timer = loop, 0, None
        self._fresh, self._again, self._again_next = deque(), deque(), True

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._given_loop is not None, "move() comes first"
        return self._given_loop

    async def enter(self, prompt: float = 0, answer: float = 0, again: bool = False) -> Turn:
        """Wait for a turn.

        Args:
            prompt: Tokens of the prompt.
            answer: Most tokens of the answer.
            again: It was refused before. Such requests take turns with fresh ones: they need not wait behind thousands
                of them, nor block them when the endpoint never takes them.
        """
        now = self._loop.time()
        if not (self._fresh or self._again or self._wait(now)):
            return self._give(prompt, answer, now)
        place = self._loop.create_future()
        (self._again if again else self._fresh).append((place, prompt, answer))
        self._wake()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave(place.result())
            raise

    def leave(self, turn: Turn) -> None:
        """Give the place back."""
        self._in_flight -= 1
        self._wake()

    def answered(self, turn: Turn, used: float | None = None, share: float = 1.0) -> None:
        """The endpoint took the request; it used so many tokens, its answer such a share of what it was allowed."""
        self.answered_at = max(self.answered_at, turn.at)
        if turn.at > self._refused_at:
            self._refusals = 0
            self._places = min(self.concurrency, self._places + 1 / self._places)
        if self._tokens and used is not None:
            self._tokens.correct(used - turn.tokens)
            self._used += (share - self._used) / 16

    def refused(self, turn: Turn, retry_after: float = 0.0) -> None:
        """The endpoint is busy, and asks to wait for so many seconds if it says so."""
        now, pause = self._loop.time(), 0.0
        if turn.at > self._refused_at:
            if not self._refusals:  # A refused trial says nothing of how many would be too many.
                self._places = max(1.0, self._places / 2)
            longest = max(LONGEST_PAUSE, self.pause)
            pause = min(self.pause * 2 ** min(self._refusals, 20), longest) * self._random.uniform(0.5, 1)
            self._refusals, self._refused_at = self._refusals + 1, now
        if retry_after:
            pause = max(pause, retry_after + self.pause * self._random.uniform(0, 0.25))
        self._paused_until = max(self._paused_until, now + pause)

    @property
    def paused(self) -> bool:
        """Whether the last news is a refusal."""
        return self._refusals > 0

    def _wait(self, now: float) -> float:
        """Seconds until the next turn may be given; infinite if that takes somebody to leave."""
        if self._in_flight >= (self.concurrency if self._refusals else int(self._places)):
            return math.inf
        wait = max(0.0, self._paused_until - now)
        if self._refusals:
            wait = max(wait, self._next_trial - now)
        for rate in (self._requests, self._tokens):
            wait = max(wait, rate.wait(now)) if rate else wait
        return wait if wait > 1e-6 else 0.0  # Smaller ones are rounding errors, which no timer can wait out.

    def _give(self, prompt: float, answer: float, now: float) -> Turn:
        tokens = prompt + answer * self._used
        self._in_flight += 1
        self._next_trial = now + self.pause
        if self._requests:
            self._requests.spend(1, now)
        if self._tokens:
            self._tokens.spend(tokens, now)
        return Turn(now, tokens)

    def _wake(self) -> None:
        """Give turns to those who wait, as many as may be given now, and come back for the others in time."""
        while self._fresh or self._again:
            now = self._loop.time()
            if wait := self._wait(now):
                self._ring_at(now + wait)
                return
            first, second = (self._again, self._fresh) if self._again_next else (self._fresh, self._again)
            queue = first or second
            self._again_next = queue is not self._again
            place, prompt, answer = queue.popleft()
            if not place.done():  # Else whoever waited was cancelled.
                place.set_result(self._give(prompt, answer, now))

    def _ring_at(self, when: float) -> None:
        if when == math.inf or (self._timer and self._timer.when() <= when):
            return
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake()


def suspicious(concurrency: float) -> float:
    """How many refusals in a row speak against the model, and not against what was asked: as many as may be in flight.

    Where these are few it takes some more: one text that a model turns down may be part of several requests in a row.
    """
    return max(concurrency, 9 - concurrency)


class Streak:
    """Calls of one kind that failed in a row, to tell an endpoint that answers none of them from one refused request.

    As many as may be in flight make the endpoint suspect. No call then goes out before those under way have ended;
    when none of them was answered either, all further ones are refused here. Where it may be the requests that are
    turned down, one by one, it takes `suspicious` many; 100 more once the model has answered any.

    Args:
        who: The model and what it is asked as, for the message.
        concurrency: Most calls in flight.
    """

    def __init__(self, who: str, concurrency: int):
        self.who, self._limits = who, (max(2, concurrency), suspicious(concurrency))
        self._failed, self._last, self._alone, self._answered = 0, "", False, False
        self._under_way: set[asyncio.Future[None]] = set()
        self._refused_at = -math.inf

    def begin(self) -> asyncio.Future[None] | None:
        """Begin a call, which goes to `end` when it is over; None while the endpoint is suspect, see `clear`."""
        if self._suspect:
            return None
        call = asyncio.get_running_loop().create_future()
        self._under_way.add(call)
        return call

    async def clear(self) -> None:
        """Wait until it is known whether the endpoint answers.

        Raises:
            CallsRefused: The last calls failed, all of them.
        """
        loop = asyncio.get_running_loop()
        while self._suspect and (others := [call for call in self._under_way if call.get_loop() is loop]):
            await asyncio.wait(others)
        if self._suspect:
            self._refuse(loop.time())

    def end(self, call: asyncio.Future[None]) -> None:
        """The call is over, whatever became of it."""
        self._under_way.discard(call)
        call.set_result(None)

    def answered(self) -> None:
        """A call was answered."""
        self._failed, self._answered = 0, True

    def failed(self, reason: str, request_refused: bool) -> None:
        """A call failed for good; `request_refused` as in `base.Completion`."""
        self._failed, self._last, self._alone = self._failed + 1, reason, request_refused

    @property
    def _suspect(self) -> bool:
        all_alike, one_by_one = self._limits
        return self._failed >= (one_by_one + 100 * self._answered if self._alone else all_alike)

    def _refuse(self, now: float) -> None:
        """Raise, unless nobody has asked for a while since it did so: what was wrong may be mended by now."""
        if -math.inf < self._refused_at < now - LONGEST_PAUSE:
            self._failed, self._refused_at = 0, -math.inf
            return
        self._refused_at = now
        alone = "; if it is a few requests alone that are refused, raise the concurrency" if self._alone else ""
        raise CallsRefused(
            f"{self._failed} calls in a row to {self.who} failed, the last with: {self._last}. What was answered is "
            f"recorded; correct this and run the same command again{alone}."
        )
