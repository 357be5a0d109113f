"""Decide when a request may be sent: limits on concurrency and rates go in, a turn for each request comes out.

All times are those of the event loop, which are monotonic: changes of the system clock have no effect.
"""

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass

from ..errors import CallsRefused

LONGEST_PAUSE = 5.0  # Seconds between trials of a busy endpoint, unless it asks for a longer wait.
_SLACK = 0.1  # Seconds of work that may be sent at once: timers are too coarse for thousands of requests a second.


class Rate:
    """At most `per_minute` units in any minute, spread evenly. Times are seconds on a monotonic clock.

    >>> rate = Rate(60)
    >>> rate.spend(1, now=5.0)
    >>> round(rate.wait(5.0), 2), rate.wait(6.1)
    (0.9, 0.0)
    """

    def __init__(self, per_minute: float):
        self.seconds = (60 + 1.1 * _SLACK) / per_minute  # Includes the slack that a minute may hold in addition.
        self._spent_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until more may be spent."""
        return max(0.0, self._spent_until - now - _SLACK)

    def spend(self, units: float, now: float) -> None:
        """Spend units at `now`, even more than are left; later ones then wait longer."""
        self._spent_until = max(self._spent_until, now) + units * self.seconds

    def correct(self, units: float) -> None:
        """Add `units` to what was spent before; negative ones subtract."""
        self._spent_until += units * self.seconds


@dataclass(frozen=True, slots=True)
class Turn:
    """Permission to send one request: the time it was given, and the tokens it is expected to use."""

    at: float
    tokens: float


_Waiting = tuple[asyncio.Future[Turn], float, float]  # A place, and the tokens of its prompt and its answer.


class Pace:
    """Turns for requests to one endpoint, in one event loop at a time.

    Each turn from `enter` is given back by `leave`, after a call of `answered` or `refused` if there is an outcome. A
    refusal means that the endpoint is busy. It halves the number of places in flight and pauses all requests, for as
    long as the endpoint asks, or for a time that doubles from `pause` up to `LONGEST_PAUSE`. Then one request per
    `pause` is sent until one is answered. The number of places then grows by one with each full round of answers, up
    to `concurrency`. Requests sent before the last refusal arrived are ignored: the refusals of a burst count as one.

    Args:
        concurrency: Most turns at once.
        requests_per_minute: None for no limit.
        tokens_per_minute: Tokens of prompts and answers; None for no limit. The length of an answer is estimated when
            its request is sent, as the mean share of `max_tokens` that earlier answers used, and corrected later.
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
        """Work in `loop` from now on. Turns of another loop are dropped; rates and limits stay."""
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
            again: The request was refused before. Refused and new requests alternate, so that neither blocks the
                other.
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
        """The endpoint accepted the request. It `used` tokens; its answer took a `share` of `max_tokens`."""
        self.answered_at = max(self.answered_at, turn.at)
        if turn.at > self._refused_at:
            self._refusals = 0
            self._places = min(self.concurrency, self._places + 1 / self._places)
        if self._tokens and used is not None:
            self._tokens.correct(used - turn.tokens)
            self._used += (share - self._used) / 16

    def refused(self, turn: Turn, retry_after: float = 0.0) -> None:
        """The endpoint is busy; it asks for a wait of `retry_after` seconds, or 0 if it does not say."""
        now, pause = self._loop.time(), 0.0
        if turn.at > self._refused_at:
            if not self._refusals:  # The refusal of a trial does not show how many requests are too many.
                self._places = max(1.0, self._places / 2)
            longest = max(LONGEST_PAUSE, self.pause)
            pause = min(self.pause * 2 ** min(self._refusals, 20), longest) * self._random.uniform(0.5, 1)
            self._refusals, self._refused_at = self._refusals + 1, now
        if retry_after:
            pause = max(pause, retry_after + self.pause * self._random.uniform(0, 0.25))
        self._paused_until = max(self._paused_until, now + pause)

    @property
    def paused(self) -> bool:
        """Whether the endpoint has refused a request and answered none since."""
        return self._refusals > 0

    def _wait(self, now: float) -> float:
        """Seconds until the next turn may be given; infinite until a place is given back."""
        if self._in_flight >= (self.concurrency if self._refusals else int(self._places)):
            return math.inf
        wait = max(0.0, self._paused_until - now)
        if self._refusals:
            wait = max(wait, self._next_trial - now)
        for rate in (self._requests, self._tokens):
            wait = max(wait, rate.wait(now)) if rate else wait
        return wait if wait > 1e-6 else 0.0  # Smaller ones are rounding errors that no timer resolves.

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
        """Give all turns that may be given now, and set the timer for the next."""
        while self._fresh or self._again:
            now = self._loop.time()
            if wait := self._wait(now):
                self._ring_at(now + wait)
                return
            first, second = (self._again, self._fresh) if self._again_next else (self._fresh, self._again)
            queue = first or second
            self._again_next = queue is not self._again
            place, prompt, answer = queue.popleft()
            if not place.done():  # Otherwise the caller was cancelled.
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
    """Refusals in a row from which on the model is at fault and not the requests: as many as may be in flight.

    At low concurrency it is more: several requests in a row may hold one text that the model refuses.
    """
    return max(concurrency, 9 - concurrency)


class Streak:
    """Counts the calls of one kind that failed in a row, to detect an endpoint that answers none.

    After as many failures as may be in flight, the endpoint is suspect. No call is then sent until those in flight
    have ended; if none of them is answered, all further calls raise `CallsRefused`. Where the failures may be due
    to the requests themselves, the limit is `suspicious`, and 100 more once the model has answered any.

    Args:
        who: The model and its role, for the message.
        concurrency: Most calls in flight.
    """

    def __init__(self, who: str, concurrency: int):
        self.who, self._limits = who, (max(2, concurrency), suspicious(concurrency))
        self._failed, self._last, self._alone, self._answered = 0, "", False, False
        self._under_way: set[asyncio.Future[None]] = set()
        self._refused_at = -math.inf

    def begin(self) -> asyncio.Future[None] | None:
        """Begin a call; pass the result to `end` afterwards. None while the endpoint is suspect, see `clear`."""
        if self._suspect:
            return None
        call = asyncio.get_running_loop().create_future()
        self._under_way.add(call)
        return call

    async def clear(self) -> None:
        """Wait until it is known whether the endpoint answers.

        Raises:
            CallsRefused: All of the last calls failed.
        """
        loop = asyncio.get_running_loop()
        while self._suspect and (others := [call for call in self._under_way if call.get_loop() is loop]):
            await asyncio.wait(others)
        if self._suspect:
            self._refuse(loop.time())

    def end(self, call: asyncio.Future[None]) -> None:
        """The call has ended, with any outcome."""
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
        """Raise, except after a long time without calls: the fault may have been repaired by then."""
        if -math.inf < self._refused_at < now - LONGEST_PAUSE:
            self._failed, self._refused_at = 0, -math.inf
            return
        self._refused_at = now
        alone = "; if it is a few requests alone that are refused, raise the concurrency" if self._alone else ""
        raise CallsRefused(
            f"{self._failed} calls in a row to {self.who} failed, the last with: {self._last}. What was answered is "
            f"recorded; correct this and run the same command again{alone}."
        )
