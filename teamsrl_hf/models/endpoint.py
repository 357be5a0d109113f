"""Any OpenAI-compatible endpoint as a generator: retries, pauses and rates around `wire`, which says what is sent.

Requests go out through aiohttp because it was measured (tests/benchmarks/bench_endpoint.py; a local endpoint, 64 in
flight, two cores that other work was using too). Requests/s at once and after 50 ms, CPU milliseconds per request:
a bare loop over aiohttp 1075 / 605 and 0.18, this module 998 / 704 and 0.23, openai's client on aiohttp 158 / 181 and
1.82, huggingface_hub's AsyncInferenceClient 146 / 166 and 1.90, openai's on its own transport 100 / 106 and 2.87.
"""

import asyncio
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ..errors import UserError
from ..types import Tier
from .base import Completion, Request
from .budget import most_tokens
from .pacing import Pace, Streak, Turn
from .wire.failure import SAID, Failure, read_refusal
from .wire.log import EndpointLog
from .wire.request import LIMITS, Dialect, refused_parameter
from .wire.response import ANSWERED, read_answer
from .wire.transport import Line, address

_CHARACTERS = 4  # Per token, where the server does not count.
_INTERRUPTED = Failure("interrupted", uncounted=True)


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


class EndpointGenerator:
    """A chat model behind any OpenAI-compatible endpoint. A failed call returns a `Completion` with `error`.

    Timeouts, broken connections and the statuses 408, 409 and 5xx are retried with exponential backoff, and never
    before a `Retry-After` has passed; other statuses are final. A whole body that is no answer is retried at most
    twice, an empty answer once, and not at temperature 0. A request that waits for its retry counts towards
    `concurrency`.

    Each attempt is booked at what the server says that it cost. One that the server may charge for without saying so
    (a timeout, a broken connection, 408, most of 5xx, an odd body) is booked at the most that it may cost, and marked
    as estimated.

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
            HF_TOKEN for the hosts of Hugging Face, OPENAI_API_KEY for api.openai.com, TEAMSRL_API_KEY elsewhere; ""
            sends none.
        concurrency: Most requests in flight.
        timeout: Seconds one attempt may take; by default 120, and 900 for OpenAI's slow tier (`service_tier: flex` in
            extra_body), as its maker advises. A 429 of that tier costs nothing, and is waited for like any other.
        max_retries: Attempts after the first.
        backoff: Seconds before the first retry; doubled for each further one, and shortened at random by up to half.
        max_wait: Longest wait in seconds; a `Retry-After` beyond it ends the request.
        requests_per_minute: Most requests in any minute, attempts included; None for no limit.
        tokens_per_minute: Most tokens of prompts and answers in any minute; None for no limit. They are estimated
            before a request is sent (see `pacing.Pace`), a prompt at four characters per token.
        headers: Further headers; each name is mapped to the environment variable that holds its value.
        query: Parameters of the URL, such as Azure's api-version.
        bill_to: Organization that pays for calls through Hugging Face's router.
        plain_http: Whether a token may go over plain http to a private address.
        extra_body, max_tokens_field, drop, system, reasoning_effort, choices: See `wire.request.Dialect`. What changes
            answers is part of the ledger's key.

    Proxies and certificates are those of the environment. If the endpoint refuses a parameter by name, requests leave
    it out from then on, and the refused ones are sent again at once; such refusals use up no retries.

    Raises:
        UserError: An argument can't be used, or a token would travel over plain http to another machine.
        CallsRefused: When called: all of the last calls failed.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_env: str | None = None,
        concurrency: int = 16,
        timeout: float | None = None,
        max_retries: int = 6,
        backoff: float = 1.0,
        max_wait: float = 300.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        bill_to: str | None = None,
        plain_http: bool = False,
        extra_body: Mapping[str, object] | None = None,
        max_tokens_field: str = LIMITS[0],
        drop: Sequence[str] = (),
        system: str | None = None,
        reasoning_effort: str | None = None,
        choices: str | None = None,
    ):
        if timeout is None:
            timeout = 900.0 if (extra_body or {}).get("service_tier") == Tier.FLEX else 120.0
        _check((concurrency, timeout, max_retries, backoff, max_wait), (requests_per_minute, tokens_per_minute))
        self.model = model
        self._line = Line(address(base_url, api_key_env, headers, query, bill_to, plain_http), timeout)
        self._dialect = Dialect(extra_body or {}, max_tokens_field, drop, system, reasoning_effort, choices)
        self._refused: set[str] = set()  # Parameters that the endpoint refused by name.
        self.timeout, self.max_retries, self.backoff, self.max_wait = timeout, max_retries, backoff, max_wait
        self._random = random.Random()  # Its own: jitter must not shift the random numbers of a training run.
        self._pace = Pace(concurrency, requests_per_minute, tokens_per_minute, pause=backoff)
        self._streaks: dict[tuple[str, str], Streak] = {}
        self._log = EndpointLog(model, max_wait)
        self.waiting: set[asyncio.Task] = set()  # Tasks that wait for a turn or a retry: nothing of theirs is sent.

    @property
    def concurrency(self) -> int:
        """Most requests in flight."""
        return self._pace.concurrency

    @property
    def base_url(self) -> str:
        """What comes before `/chat/completions`."""
        return self._line.address.base_url

    @property
    def api_key_env(self) -> str | None:
        """Name of the environment variable that holds the token, or None if none is sent."""
        return self._line.address.api_key_env

    def answer_options(self, request: Request) -> dict[str, object]:
        """The options that change the answer to a request, for the ledger's key. See `base.answer_options_of`."""
        return self._dialect.answer_options(request)

    def rendered(self, request: Request) -> str:
        """The HTTP request as it would be sent, without secrets. See `base.rendered_by`."""
        return self._line.address.rendered(self._dialect.body(request, self.model, self._refused))

    async def __call__(self, request: Request) -> Completion:
        await self._line.open()
        self._pace.move(asyncio.get_running_loop())
        streak = self._streak(request)
        request.purchase.release()  # Until it has a place: budgets hold for what is in flight.
        with self._nothing_sent():
            turn, call = await self._begin(request, streak)
        try:
            completion = await self._ask(request, turn)
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

    async def _ask(self, request: Request, turn: Turn | None) -> Completion:
        """Send the request until it is answered or may not be sent again; `turn` is for the first attempt."""
        waits, failures = _Waits(self.max_retries, self.max_wait), list[Failure]()
        while turn:
            try:
                with self._nothing_sent():
                    await request.purchase.reserve()
                answer = await self._attempt(request, failures)
                self._learn(turn, answer, request)
                if isinstance(answer, Completion):
                    return _with(answer, failures) if failures else answer
                failures.append(answer)
                if answer.parameter is None and waits.over(answer, turn.at, self._pace.answered_at):
                    break
                request.purchase.failed(self._given_up(failures))
                if answer.parameter is None and not answer.busy:
                    self._log.retried(answer)
                    with self._nothing_sent():
                        delay = self.backoff * 2 ** (waits.failures - 1) * self._random.uniform(0.5, 1)
                        await asyncio.sleep(min(answer.retry_after + delay, self.max_wait))
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

    def _given_up(self, failures: Sequence[Failure], in_time: bool = True) -> Completion:
        last = failures[-1]
        if not in_time:
            self._log.gave_up(last)
        reason = _reason(failures, self.max_wait, in_time)
        answer = Completion("", self.model, error=reason, attempts=0, request_refused=last.about_request)
        return _with(answer, failures)

    async def close(self) -> None:
        """Close the connections before the event loop ends. The next call opens new ones."""
        await self._line.close()

    async def _attempt(self, request: Request, failures: Sequence[Failure]) -> Completion | Failure:
        """Send the request once, after these failures; one without a count gets the most that it may cost."""
        try:
            answer = await self._send(request)
            return _counted(answer, request, self.answer_options(request)) if isinstance(answer, Failure) else answer
        except asyncio.CancelledError:
            cut = _counted(_INTERRUPTED, request, self.answer_options(request))
            request.purchase.failed(self._given_up([*failures, cut]))
            raise

    async def _send(self, request: Request) -> Completion | Failure:
        sent = self._dialect.body(request, self.model, self._refused)
        reply = await self._line.send(sent)
        if isinstance(reply, Failure):
            # A server that answered before is probably restarting; a wrong address never answered.
            return replace(reply, gone=False) if reply.gone and self._pace.answered_at == -math.inf else reply
        if reply.status in ANSWERED:
            return read_answer(reply.body, self.model, reply.secrets, certain=sent.get("temperature") == 0)
        variable = self._line.address.variable
        refusal = read_refusal(reply.status, reply.headers, reply.body, reply.secrets, variable)
        return self._without_refused(refusal, reply.body, sent)

    def _without_refused(self, refusal: Failure, body: bytes, sent: Mapping[str, object]) -> Failure:
        """The refusal, with the parameter that it concerns if requests can leave it out; learns that parameter."""
        name = refused_parameter(refusal.status, body[:SAID].decode("utf-8", "replace"), sent)
        if name is None or (name in LIMITS and not self._refused.isdisjoint({*LIMITS} - {name})):
            return refusal  # Of the two limits on tokens one has to be sent: no other limits the cost.
        refusal = replace(refusal, parameter=name)
        if name not in self._refused:
            self._refused.add(name)
            self._log.learned(refusal, self._dialect.limit(self._refused))
        return refusal


def _check(numbers: tuple[int, float, int, float, float], rates: Sequence[float | None]) -> None:
    """UserError unless these arguments of a generator are in their ranges."""
    concurrency, timeout, *waits = numbers
    if not (concurrency >= 1 and 0 < timeout < math.inf and all(0 <= n < math.inf for n in waits)):
        *others, max_wait = numbers
        raise UserError(
            "concurrency and timeout must be above 0, max_retries, backoff and max_wait at least 0, not "
            f"{', '.join(map(str, others))} and {max_wait}."
        )
    for rate in rates:
        if rate is not None and not 0 < rate < math.inf:
            raise UserError(f"A rate per minute must be above 0, not {rate}; leave it out for no limit.")


def _counted(failure: Failure, request: Request, options: Mapping[str, object]) -> Failure:
    """The failure; where its count got lost, with the most tokens that the server may charge for."""
    if not failure.uncounted:
        return failure
    prompt, completion = most = most_tokens(request, options)
    return replace(failure, prompt_tokens=prompt, completion_tokens=completion, estimated_tokens=most)


def _reason(failures: Sequence[Failure], max_wait: float, in_time: bool) -> str:
    """Why a call failed, by the last of its failures; not `in_time` if it waited longer than `max_wait` seconds."""
    last = failures[-1]
    reason = last.reason if in_time else f"{last.reason} (for {max_wait:g} s)"
    if last.retry_after > max_wait:
        reason += f" (to be tried again in {last.retry_after:.0f} s)"
    return f"{reason} after {len(failures)} attempts" if len(failures) > 1 else reason


def _with(answer: Completion, failures: Sequence[Failure]) -> Completion:
    """The answer with the tokens and attempts of the failures before it added."""
    prompts, answers = zip(*(failure.estimated_tokens for failure in failures), strict=True)
    return replace(
        answer,
        prompt_tokens=answer.prompt_tokens + sum(failure.prompt_tokens for failure in failures),
        completion_tokens=answer.completion_tokens + sum(failure.completion_tokens for failure in failures),
        cached_tokens=answer.cached_tokens + sum(failure.cached_tokens for failure in failures),
        estimated_tokens=(sum(prompts), sum(answers)),
        attempts=answer.attempts + len(failures),
    )


def _size(request: Request) -> tuple[float, int]:
    """Estimated tokens of the prompt, and the maximum of the answer."""
    return sum(len(message["content"]) for message in request.messages) / _CHARACTERS, request.sampling.max_tokens
