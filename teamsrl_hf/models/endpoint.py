"""Any OpenAI-compatible endpoint as a generator: retries, pauses and rates around `wire`, which says what is sent.

Requests go out through aiohttp because it was measured (tests/benchmarks/bench_endpoint.py; a local endpoint, 64 in
flight, two cores that other work was using too). Requests/s at once and after 50 ms, CPU milliseconds per request:
a bare loop over aiohttp 1075 / 605 and 0.18, this module 998 / 704 and 0.23, openai's client on aiohttp 158 / 181 and
1.82, huggingface_hub's AsyncInferenceClient 146 / 166 and 1.90, openai's on its own transport 100 / 106 and 2.87.
"""

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import UserError
from ..redaction import excerpt
from .base import Completion, Request
from .pacing import Pace, Streak, Turn
from .wire.request import payload
from .wire.response import Failure, read_answer, read_refusal, undecodable
from .wire.transport import key_variable, open_sessions

if TYPE_CHECKING:
    from aiohttp import ClientSession

_QUIET = 30.0  # Seconds between two lines about failures of one kind.
_CHARACTERS = 4  # Per token, where the server does not count.
logger = logging.getLogger(__name__)


class _Waits:
    """Decides whether one request is sent again. Its first refusal sets `until`, the time at which it gives up."""

    def __init__(self, max_retries: int, max_wait: float):
        self.max_retries, self.max_wait = max_retries, max_wait
        self.failures, self.limited, self.refused_at = 0, 0, math.inf
        self.until: float | None = None

    def over(self, failure: Failure, sent_at: float, answered_at: float) -> bool:
        """Whether this failure is final. `answered_at` is the time at which the last answered request was sent."""
        if not failure.busy:
            self.failures += 1
            self.limited += failure.retries is not None
        else:
            # Refused while others are answered: except for 429, this request may be what makes the endpoint fail.
            self.failures += failure.status != 429 and answered_at > self.refused_at
            self.refused_at = sent_at
            self.until = asyncio.get_running_loop().time() + self.max_wait if self.until is None else self.until
        if failure.retries is not None and self.limited > failure.retries:
            return True
        return not failure.retry or self.failures > self.max_retries or failure.retry_after > self.max_wait


class _Log:
    """What the log says about one endpoint: a line when it stops taking requests, and one when it takes them again.

    Other failures that are retried get a line per kind, at most one every `_QUIET` seconds.
    """

    def __init__(self, model: str, max_wait: float):
        self.model, self.max_wait = model, max_wait
        self._last: dict[str, tuple[float, int]] = {}  # By kind: the time of the last line, and failures since.
        self._paused_at: float | None = None
        self._refused, self._announced, self._gave_up = 0, False, False
        self._kinds: set[str] = set()

    def refused(self, failure: Failure) -> None:
        """The endpoint refused a request because it is busy or gone."""
        if self._paused_at is None:
            self._paused_at, self._refused, self._kinds = time.monotonic(), 0, set()
            self._announced = self._gave_up = False
        self._refused += 1
        kind = _kind(failure)
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._announced |= self._warn(failure, self._then(failure.retry_after))

    def answered(self) -> None:
        """The endpoint accepts requests."""
        if self._paused_at is not None:
            seconds, self._paused_at = time.monotonic() - self._paused_at, None
            if self._announced:
                logger.info("%s: answers again after %.1f s; requests refused: %d", self.model, seconds, self._refused)

    def retried(self, failure: Failure) -> None:
        """One request failed, and is sent again."""
        self._warn(failure, "it is tried again")

    def gave_up(self, failure: Failure) -> None:
        """A request failed because the pause outlasted `max_wait`."""
        if self._paused_at is not None and not self._gave_up:
            self._gave_up = True
            logger.warning("%s: %s, for %g s by now; requests fail", self.model, failure.reason, self.max_wait)

    def _then(self, retry_after: float) -> str:
        if retry_after > self.max_wait:
            longer = f"longer than max_wait ({self.max_wait:g} s)"
            return f"it asks for a wait of {retry_after:.0f} s, {longer}; requests fail"
        return f"requests wait, and are tried again for up to {self.max_wait:g} s"

    def _warn(self, failure: Failure, then: str) -> bool:
        """Whether a line was written."""
        now, kind = time.monotonic(), _kind(failure)
        last, more = self._last.get(kind, (-math.inf, 0))
        if now - last < _QUIET:
            self._last[kind] = last, more + 1
            return False
        self._last[kind] = now, 0
        again = f" ({more:,} more since the last such line)" if more else ""
        logger.warning("%s: %s; %s%s", self.model, failure.reason, then, again)
        return True


def _kind(failure: Failure) -> str:
    return failure.reason.partition(":")[0]


class EndpointGenerator:
    """A chat model behind any OpenAI-compatible endpoint. A failed call returns a `Completion` with `error`.

    Timeouts, broken connections and the statuses 408, 409 and 5xx are retried with exponential backoff, and never
    before a `Retry-After` has passed; other statuses are final. A whole body that is no answer is retried at most
    twice, an empty answer once, and not at temperature 0. A server that charges for answers it could not deliver
    charges for each attempt. A request that waits for its retry counts towards `concurrency`.

    The statuses 429 (except for lack of credit), 503 and 529 mean that the endpoint is busy, and so does a refused
    connection after an earlier answer. All requests then pause; the client lowers its concurrency and raises it again
    later (see `pacing.Pace`). Such refusals do not count against `max_retries`, so an outage loses no rows. A request
    fails after `max_wait` seconds of refusals, or, except for 429, after `max_retries` of them while other requests
    are answered. The log records pauses and retries. Use a generator from one event loop at a time.

    After as many failures in a row as may be in flight, the client assumes a general fault: once the calls in flight
    have failed too, it sends no more (see `pacing.Streak`).

    Args:
        model: Name of the model, as the endpoint knows it.
        base_url: What comes before `/chat/completions`, such as "https://router.huggingface.co/v1".
        api_key_env: Environment variable that holds the token; it is read at each call and kept nowhere. By default
            HF_TOKEN for huggingface.co, OPENAI_API_KEY for api.openai.com, TEAMSRL_API_KEY elsewhere; "" sends none.
        concurrency: Most requests in flight.
        timeout: Seconds one attempt may take.
        max_retries: Attempts after the first.
        backoff: Seconds before the first retry; doubled for each further one, and shortened at random by up to half.
        max_wait: Longest wait in seconds; a `Retry-After` beyond it ends the request.
        requests_per_minute: Most requests in any minute, attempts included; None for no limit.
        tokens_per_minute: Most tokens of prompts and answers in any minute; None for no limit. They are estimated
            before a request is sent (see `pacing.Pace`), a prompt at four characters per token.

    Raises:
        UserError: An argument is out of range, or a token would travel over plain http to another machine.
        CallsRefused: When called: all of the last calls failed.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_env: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 6,
        backoff: float = 1.0,
        max_wait: float = 300.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ):
        waits = max_retries, backoff, max_wait
        if not (concurrency >= 1 and 0 < timeout < math.inf and all(0 <= n < math.inf for n in waits)):
            raise UserError(
                "concurrency and timeout must be above 0, max_retries, backoff and max_wait at least 0, not "
                f"{concurrency}, {timeout}, {max_retries}, {backoff} and {max_wait}."
            )
        for rate in (requests_per_minute, tokens_per_minute):
            if rate is not None and not 0 < rate < math.inf:
                raise UserError(f"A rate per minute must be above 0, not {rate}; leave it out for no limit.")
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.api_key_env = key_variable(base_url, api_key_env)
        self.timeout, self.max_retries, self.backoff, self.max_wait = timeout, max_retries, backoff, max_wait
        self._random = random.Random()  # Its own: jitter must not shift the random numbers of a training run.
        self._pace = Pace(concurrency, requests_per_minute, tokens_per_minute, pause=backoff)
        self._streaks: dict[tuple[str, str], Streak] = {}
        self._log = _Log(model, max_wait)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: AsyncGenerator[ClientSession, None] | None = None
        self._session: ClientSession | None = None
        self.waiting: set[asyncio.Task] = set()  # Tasks that wait for a turn or a retry: nothing of theirs is sent.

    @property
    def concurrency(self) -> int:
        """Most requests in flight."""
        return self._pace.concurrency

    async def __call__(self, request: Request) -> Completion:
        session, streak = await self._open(), self._streak(request)
        with self._nothing_sent():
            turn, call = await self._begin(request, streak)
        try:
            completion = await self._ask(session, request, turn)
            if completion.error is None:
                streak.answered()
            else:
                streak.failed(completion.error, completion.request_refused)
            return completion
        finally:
            streak.end(call)

    async def _begin(self, request: Request, streak: Streak) -> tuple[Turn, asyncio.Future[None]]:
        """Wait for a turn, and until the endpoint is no longer suspected to refuse all requests."""
        while True:
            turn = await self._pace.enter(*_size(request))
            if (call := streak.begin()) is not None:
                return turn, call
            # Give the turn back first: a call that this one waits for may need it for a retry.
            self._pace.leave(turn)
            await streak.clear()

    async def _ask(self, session: "ClientSession", request: Request, turn: Turn | None) -> Completion:
        """Send the request until it is answered or may not be sent again; `turn` is for the first attempt."""
        waits, failures = _Waits(self.max_retries, self.max_wait), list[Failure]()
        while turn:
            try:
                answer = await self._attempt(session, request)
                self._learn(turn, answer, request)
                if isinstance(answer, Completion):
                    return _with(answer, failures) if failures else answer
                failures.append(answer)
                if waits.over(answer, turn.at, self._pace.answered_at):
                    break
                if not answer.busy:
                    self._log.retried(answer)
                    with self._nothing_sent():
                        await asyncio.sleep(self._delay(waits.failures, answer.retry_after))
            finally:
                self._pace.leave(turn)
            with self._nothing_sent():
                turn = await self._turn(request, waits.until)
        return self._given_up(failures, in_time=turn is not None)

    @contextmanager
    def _nothing_sent(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self.waiting.add(task)
        try:
            yield
        finally:
            self.waiting.discard(task)

    def _streak(self, request: Request) -> Streak:
        kind = request.role, request.kind
        if kind not in self._streaks:
            self._streaks[kind] = Streak(f"{self.model!r} as {request.role}", self.concurrency)
        return self._streaks[kind]

    async def _turn(self, request: Request, until: float | None) -> Turn | None:
        """Wait for a turn; None if `until` passes first, the time at which a refused request gives up."""
        if until is None:
            return await self._pace.enter(*_size(request))
        try:
            async with asyncio.timeout_at(until):
                return await self._pace.enter(*_size(request), again=True)
        except TimeoutError:
            return None

    def _learn(self, turn: Turn, answer: Completion | Failure, request: Request) -> None:
        """Adapt the pace to one answer."""
        if isinstance(answer, Completion):
            guess, most = _size(request)
            used = answer.completion_tokens or len(answer.text) / _CHARACTERS  # Some servers don't count.
            self._pace.answered(turn, (answer.prompt_tokens or guess) + used, used / max(1, most))
        elif answer.busy:
            self._pace.refused(turn, answer.retry_after if answer.retry_after <= self.max_wait else 0.0)
            self._log.refused(answer)
        elif answer.status:  # An error, but the endpoint accepted the request.
            self._pace.answered(turn)
        if not self._pace.paused:
            self._log.answered()

    def _delay(self, failures: int, retry_after: float) -> float:
        return min(retry_after + self.backoff * 2 ** (failures - 1) * self._random.uniform(0.5, 1), self.max_wait)

    def _given_up(self, failures: list[Failure], in_time: bool) -> Completion:
        last, *earlier = reversed(failures)
        if not in_time:
            self._log.gave_up(last)
        reason = last.reason if in_time else f"{last.reason} (for {self.max_wait:g} s)"
        if last.retry_after > self.max_wait:
            reason += f" (to be tried again in {last.retry_after:.0f} s)"
        if earlier:
            reason += f" after {len(failures)} attempts"
        counted = last.prompt_tokens, last.completion_tokens
        answer = Completion("", self.model, *counted, error=reason, request_refused=last.about_request)
        return _with(answer, earlier)

    async def close(self) -> None:
        """Close the connections before the event loop ends. The next call opens new ones."""
        self._loop = None
        if self._sessions is not None:
            await self._sessions.aclose()

    async def _open(self) -> "ClientSession":
        """The session of the running loop; a session works only in the loop that opened it."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._sessions = open_sessions(self.timeout)
            self._session = await anext(self._sessions)
            self._pace.move(loop)
            self._loop = loop
        return self._session

    async def _attempt(self, session: "ClientSession", request: Request) -> Completion | Failure:
        import aiohttp

        token = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not (token.isascii() and token.isprintable()):
            return Failure(f"the token in {self.api_key_env} holds characters that no header can carry")
        url, headers = f"{self.base_url}/chat/completions", {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # A redirect might send the token to another host.
            async with session.post(
                url, json=payload(request, self.model), headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except TimeoutError:
            return Failure(f"no answer within {self.timeout:g} s", retry=True)
        except (aiohttp.ClientError, OSError) as error:
            if (unreadable := _unreadable(error)) is not None:
                return undecodable(excerpt(unreadable, token))
            final = isinstance(error, aiohttp.ClientSSLError)  # A bad certificate is still bad a second later.
            reason = excerpt(f"connection failed: {type(error).__name__}: {error}", token)
            # A server that answered before is probably restarting; a wrong address never answered.
            gone = isinstance(error, aiohttp.ClientConnectorError) and self._pace.answered_at > -math.inf
            return Failure(reason, not final, gone=gone and not final)
        if response.status == 200:
            return read_answer(body, self.model, token, certain=request.sampling.temperature == 0)
        return read_refusal(response.status, response.headers, body, token, self.api_key_env)


def _unreadable(error: Exception) -> str | None:
    """What aiohttp says of a response that it can't parse or decompress; None for any other error."""
    import aiohttp

    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return error.message
    cause = error.__cause__
    return cause.message if isinstance(cause, aiohttp.http_exceptions.ContentEncodingError) else None


def _with(answer: Completion, failures: list[Failure]) -> Completion:
    """The answer with the tokens and attempts of the failures before it added."""
    return replace(
        answer,
        prompt_tokens=answer.prompt_tokens + sum(failure.prompt_tokens for failure in failures),
        completion_tokens=answer.completion_tokens + sum(failure.completion_tokens for failure in failures),
        attempts=1 + len(failures),
    )


def _size(request: Request) -> tuple[float, int]:
    """Estimated tokens of the prompt, and the maximum of the answer."""
    return sum(len(message["content"]) for message in request.messages) / _CHARACTERS, request.sampling.max_tokens
