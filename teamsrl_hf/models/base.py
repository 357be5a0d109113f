"""Models as functions: one request in, one completion out, asynchronously; any OpenAI-compatible endpoint is one.

Requests go out through aiohttp because it was measured (tests/benchmarks/bench_endpoint.py; a local endpoint, 64 in
flight, two cores that other work was using too). Requests/s at once and after 50 ms, CPU milliseconds per request:
a bare loop over aiohttp 1075 / 605 and 0.18, this module 998 / 704 and 0.23, openai's client on aiohttp 158 / 181 and
1.82, huggingface_hub's AsyncInferenceClient 146 / 166 and 1.90, openai's on its own transport 100 / 106 and 2.87.
"""

import asyncio
import email.utils
import ipaddress
import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urlsplit

from ..errors import UserError, check_number
from ..redaction import excerpt, redact, token_variable
from ..text.operations import Messages
from ..text.tokens import NO_ANSWER, without_thoughts
from ..types import Finish, Role
from .pacing import Pace, Streak, Turn

_RETRIED = {408, 409, 429}  # and everything from 500 up
_BUSY = {429, 503, 529}
# What a server may say to one request and not to the next: for its content, its length, its parameters.
_ABOUT_REQUEST = {200, 400, 403, 413, 414, 422, 451}
_QUIET = 30.0  # Seconds in which failures of one kind are told once.
logger = logging.getLogger(__name__)
_CHARACTERS = 4  # A token has about so many, where nobody has counted yet.


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters sent with a request. `seed` is sent only when given.

    Raises:
        UserError: One of them is out of its range, which an endpoint would say of every single call.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    seed: int | None = None

    def __post_init__(self):
        check_number("temperature", self.temperature, 0)
        check_number("top_p", self.top_p, above=0, most=1)
        check_number("max_tokens", self.max_tokens, 1, whole=True)
        if self.seed is not None:
            check_number("seed", self.seed, whole=True)


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        role: Who is asked.
        messages: Chat messages, oldest first.
        sampling: How to sample.
        sample_index: Which of several answers to the same question; part of the ledger's key.
        kind: What sort of question, where a role is asked several: "answer" for an instruction as it stands. Failures
            of one sort say nothing of another. No part of the ledger's key.
    """

    role: Role
    messages: Messages
    sampling: Sampling = field(default_factory=Sampling)
    sample_index: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Completion:
    """One answer. `error` names what went wrong when there is no answer; a failed call is a value, not an exception.

    `finish_reason` says how the answer ended, see `types.Finish`. `attempts` counts the requests that
    were sent for it, failed and refused ones included; the tokens are those of all that the server counted.
    `request_refused` is true of a failure that may be about this request alone: the model would not answer it, but
    others. A failure without it (a wrong key, no credit, an outage) is no fault of the request's.
    """

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: Finish = Finish.STOP
    error: str | None = None
    attempts: int = 1
    request_refused: bool = False


class Generator(Protocol):
    """Anything that answers a request. `model` names it in ledgers, rows and cards.

    One that never waits may say so with an attribute `immediate = True`; it is then called without an event loop. One
    that moreover always answers the same request alike may add `deterministic = True`; it is then not asked twice. One
    that sends no more than so many requests at once, and lets others wait, may tell their number as `concurrency`.
    """

    model: str

    async def __call__(self, request: Request) -> Completion: ...


def request_seed(request: Request) -> int | None:
    """The seed to sample with: several answers to one question need different seeds, or they would all be the same.

    >>> request_seed(Request("judge", (), Sampling(seed=7)))
    7
    >>> request_seed(Request("judge", (), Sampling(seed=7), sample_index=2))
    2000013
    """
    seed = request.sampling.seed
    return None if seed is None else seed + 1_000_003 * request.sample_index


class ScriptedGenerator:
    """A generator whose answers are written beforehand, for tests; `calls` counts the requests it got.

    Args:
        answers: A function from request to answer, or answers to give in turn. An answer is a text or a `Completion`.
        model: Name under which it appears in ledgers, rows and cards.

    Raises:
        UserError: `answers` is a single text, or (when called) no answer is left.
    """

    immediate = True

    def __init__(
        self, answers: Callable[[Request], str | Completion] | Iterable[str | Completion], model: str = "scripted"
    ):
        if isinstance(answers, str):
            raise UserError(f"The answers are one text, {answers[:40]!r}; put it in a list, or pass a function.")
        self.model = model
        self.calls = 0
        self._answers = answers if callable(answers) else iter(answers)

    async def __call__(self, request: Request) -> Completion:
        self.calls += 1
        answer = self._answers(request) if callable(self._answers) else next(self._answers, None)
        if answer is None:
            raise UserError(f"No scripted answer for call {self.calls} (role {request.role!r}); script more answers.")
        return answer if isinstance(answer, Completion) else Completion(answer, self.model)


@dataclass(frozen=True)
class _Failure:
    """Why one attempt gave no answer, whether another may, and how many seconds the server wants it to wait.

    The tokens are those that the server counted, and most likely charges for.
    """

    reason: str
    retry: bool = False
    retry_after: float = 0.0
    status: int = 0
    gone: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def busy(self) -> bool:
        """Whether the endpoint has too much to do or is gone for a while, which says nothing of this request."""
        return self.gone or self.status in _BUSY

    @property
    def about_request(self) -> bool:
        return self.status in _ABOUT_REQUEST


class _Waits:
    """Whether one request may be sent once more. `until` is set by its first refusal: when to give up waiting."""

    def __init__(self, max_retries: int, max_wait: float):
        self.max_retries, self.max_wait = max_retries, max_wait
        self.failures, self.until, self.refused_at = 0, None, math.inf

    def over(self, failure: _Failure, sent_at: float, answered_at: float) -> bool:
        """Whether this failure is the last. `sent_at` is when it was sent, `answered_at` when an answered one was."""
        if not failure.busy:
            self.failures += 1
        else:
            # Refused, though others are answered: but for 429, perhaps the endpoint can't stomach this request.
            self.failures += failure.status != 429 and answered_at > self.refused_at
            self.refused_at = sent_at
            self.until = self.until or asyncio.get_running_loop().time() + self.max_wait
        return not failure.retry or self.failures > self.max_retries or failure.retry_after > self.max_wait


class EndpointGenerator:
    """A chat model behind any OpenAI-compatible endpoint. What fails comes back as a `Completion` with `error`.

    Timeouts, broken connections, malformed answers and the statuses 408, 409 and 5xx are tried again, after
    exponentially growing waits and never before a `Retry-After` has passed; other statuses are final. A server that
    charges for an answer it could not deliver charges for each attempt. A request that waits for its next attempt
    keeps its place among the `concurrency`.

    The statuses 429 (unless for want of credit), 503 and 529 say that the endpoint is busy, and so does a refused
    connection once it has answered: everybody pauses, fewer requests go out at once and then more again (see
    `pacing.Pace`). They do not count against `max_retries`, so that an outage costs no rows: a request is given up
    once it has been refused for `max_wait` seconds, or (but for 429) after `max_retries` if others got answers all the
    while. Such pauses, and other attempts to come, are told in the log. Use it from one event loop at a time.

    When as many calls as may be in flight have failed in a row, and none of those under way is answered, something is
    wrong with all of them: further calls are not sent (see `pacing.Streak`).

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
        tokens_per_minute: Most tokens in any minute, of prompts and answers, as far as they can be known beforehand
            (see `pacing.Pace`; a prompt is taken to have a token for each four characters); None for no limit.

    Raises:
        UserError: An argument is out of range, or a token would travel over plain http to another machine.
        CallsRefused: When called: the last calls failed, all of them.
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
        self.api_key_env = _key_variable(base_url, api_key_env)
        self.concurrency, self.timeout = concurrency, timeout
        self.max_retries, self.backoff, self.max_wait = max_retries, backoff, max_wait
        self._random = random.Random()  # Its own: jitter must not shift the random numbers of a training run.
        self._pace = Pace(concurrency, requests_per_minute, tokens_per_minute, pause=backoff)
        self._streaks: dict[tuple[str, str], Streak] = {}
        self._warned: dict[str, tuple[float, int]] = {}
        self._loop = self._sessions = self._session = None
        self.waiting: set[asyncio.Task] = set()  # Tasks that wait for a turn or a retry: nothing of theirs is sent.

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
        """Wait until the request may be sent: for a turn, and while the endpoint is suspected to refuse all."""
        while True:
            turn = await self._turn(request, None)
            if (call := streak.begin()) is not None:
                return turn, call
            # Not with the turn in hand, which one of those waited for may need for its next attempt.
            self._pace.leave(turn)
            await streak.clear()

    async def _ask(self, session, request: Request, turn: Turn | None) -> Completion:
        """Attempts until one is answered or the last has failed; the first has its turn."""
        waits, failures = _Waits(self.max_retries, self.max_wait), []
        while turn:
            try:
                answer = await self._attempt(session, request)
                self._tell(turn, answer, request)
                if isinstance(answer, Completion):
                    return _with(answer, failures) if failures else answer
                failures.append(answer)
                if waits.over(answer, turn.at, self._pace.answered_at):
                    break
                self._warn(answer)
                if not answer.busy:
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
        """A turn, or None when it has not come `until` then, which is set once the request has been refused."""
        if until is None:
            return await self._pace.enter(*_size(request))
        try:
            async with asyncio.timeout_at(until):
                return await self._pace.enter(*_size(request), again=True)
        except TimeoutError:
            return None

    def _tell(self, turn: Turn, answer: Completion | _Failure, request: Request) -> None:
        """What the answer says of the endpoint as a whole."""
        if isinstance(answer, Completion):
            guess, most = _size(request)
            used = answer.completion_tokens or len(answer.text) / _CHARACTERS  # Some servers don't count.
            self._pace.answered(turn, (answer.prompt_tokens or guess) + used, used / max(1, most))
        elif answer.busy:
            self._pace.refused(turn, answer.retry_after if answer.retry_after <= self.max_wait else 0.0)
        elif answer.status:  # Not what was wanted, but it was let in.
            self._pace.answered(turn)

    def _warn(self, failure: _Failure) -> None:
        """One line in the log at the first failure of a kind, and then at most every `_QUIET` seconds."""
        now, kind = time.monotonic(), failure.reason.partition(":")[0]
        told_at, more = self._warned.get(kind, (-math.inf, 0))
        if now - told_at < _QUIET:
            self._warned[kind] = told_at, more + 1
            return
        self._warned[kind] = now, 0
        then = (
            f"requests wait, and are tried again for up to {self.max_wait:g} s"
            if failure.busy
            else "it is tried again"
        )
        again = f" ({more:,} more since the last such line)" if more else ""
        logger.warning("%s: %s; %s%s", self.model, failure.reason, then, again)

    def _delay(self, failures: int, retry_after: float) -> float:
        return min(retry_after + self.backoff * 2 ** (failures - 1) * self._random.uniform(0.5, 1), self.max_wait)

    def _given_up(self, failures: list[_Failure], in_time: bool) -> Completion:
        last, *earlier = reversed(failures)
        reason = last.reason if in_time else f"{last.reason} (for {self.max_wait:g} s)"
        if last.retry_after > self.max_wait:
            reason += f" (to be tried again in {last.retry_after:.0f} s)"
        if earlier:
            reason += f" after {len(failures)} attempts"
        counted = last.prompt_tokens, last.completion_tokens
        answer = Completion("", self.model, *counted, error=reason, request_refused=last.about_request)
        return _with(answer, earlier)

    async def close(self) -> None:
        """Close the connections now rather than when the event loop ends. The next call opens new ones."""
        self._loop = None
        if self._sessions is not None:
            await self._sessions.aclose()

    async def _open(self):
        """The session of the running loop: none works in another loop than its first."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._sessions = _sessions(self.timeout)
            self._session = await anext(self._sessions)
            self._pace.move(loop)
            self._loop = loop
        return self._session

    async def _attempt(self, session, request: Request) -> Completion | _Failure:
        import aiohttp

        token = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not (token.isascii() and token.isprintable()):
            return _Failure(f"the token in {self.api_key_env} holds characters that no header can carry")
        url, headers = f"{self.base_url}/chat/completions", {"Authorization": f"Bearer {token}"} if token else {}
        try:
            # A redirect might lead the request, token and all, to another host.
            async with session.post(
                url, json=_payload(request, self.model), headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except TimeoutError:
            return _Failure(f"no answer within {self.timeout:g} s", retry=True)
        except (aiohttp.ClientError, OSError) as error:
            final = isinstance(error, aiohttp.ClientSSLError)  # A bad certificate is still bad a second later.
            reason = excerpt(f"connection failed: {type(error).__name__}: {error}", token)
            # Nobody there, where somebody was: it is being started again. A wrong address never answered.
            gone = isinstance(error, aiohttp.ClientConnectorError) and self._pace.answered_at > -math.inf
            return _Failure(reason, not final, gone=gone and not final)
        if response.status == 200:
            return _read_answer(body, self.model, token)
        # No credit is no passing matter, although OpenAI gives it the status of one.
        spent = response.status == 429 and b"insufficient_quota" in body
        retry = (response.status in _RETRIED or response.status >= 500) and not spent
        reason = f"HTTP {response.status}: {self._complaint(response.status, body, token)}".removesuffix(": ")
        wait = _seconds(response.headers.get("Retry-After", ""), response.headers.get("Date", ""))
        return _Failure(reason, retry, wait, 402 if spent else response.status)

    def _complaint(self, status: int, body: bytes, token: str) -> str:
        text = body.decode("utf-8", "replace")
        if status != 401:
            return excerpt(text, token)
        # Servers like to repeat a part of the token they refuse, with stars or dots in place of the rest.
        text = excerpt(re.sub(r"\S*(?:\*\*|\.\.\.|…)\S*", "***", text[:4000]), token, shared=4)
        variable = self.api_key_env or "api_key_env"
        told = f"the token is the one in {variable}" if token else f"a token is wanted, but {variable} is not set"
        return f"{text} ({told})".strip()


def _with(answer: Completion, failures: list[_Failure]) -> Completion:
    """The answer with what the failed attempts before it cost."""
    return replace(
        answer,
        prompt_tokens=answer.prompt_tokens + sum(failure.prompt_tokens for failure in failures),
        completion_tokens=answer.completion_tokens + sum(failure.completion_tokens for failure in failures),
        attempts=1 + len(failures),
    )


async def _sessions(timeout: float):
    """One session. A generator, because `asyncio.run` closes those that are still open when its loop ends."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
    ) as session:
        yield session


def _key_variable(base_url: str, given: str | None) -> str | None:
    """Name of the variable that holds the token for this endpoint, or None when no token may be sent."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable or set(base_url) & set("@?#"):
        given = "one with '@', '?' or '#'" if set(base_url) & set("@?#") else repr(redact(base_url))
        raise UserError(f"base_url must be like 'https://host/v1', not {given}; put a token into the environment.")
    host = parts.hostname
    name = _default_variable(host) if given is None else given and token_variable(given)
    if parts.scheme == "http" and not _is_loopback(host):
        if given or (name and os.environ.get(name)):
            raise UserError(
                f"The token in {name} would go over plain http to {host}; use https, or api_key_env='' to send none."
            )
        return None
    return name or None


def _default_variable(host: str) -> str:
    if host == "huggingface.co" or host.endswith(".huggingface.co"):
        return "HF_TOKEN"
    return "OPENAI_API_KEY" if host == "api.openai.com" else "TEAMSRL_API_KEY"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _size(request: Request) -> tuple[float, int]:
    """Tokens of the prompt, at a guess, and the most that the answer may have."""
    return sum(len(message["content"]) for message in request.messages) / _CHARACTERS, request.sampling.max_tokens


def _payload(request: Request, model: str) -> dict:
    # Always with max_tokens: servers' own defaults differ, and some cut answers after a few words.
    sampling, seed = request.sampling, request_seed(request)
    payload = {
        "model": model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    return payload if seed is None else payload | {"seed": seed}


def _read_answer(body: bytes, model: str, token: str) -> Completion | _Failure:
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return _Failure(f"malformed answer: {excerpt(body.decode('utf-8', 'replace'), token)}", True, status=200)
    prompt, completion = _count(answer.get("usage"), "prompt_tokens"), _count(answer.get("usage"), "completion_tokens")
    spent = {"status": 200, "prompt_tokens": prompt, "completion_tokens": completion}
    if reason == "content_filter":
        return _Failure("the endpoint's content filter stopped the answer", **spent)
    said = text if isinstance(text, str) else ""
    text = without_thoughts(said)
    if not text.strip():
        # Cut before its first word (by thinking, say): each further attempt would cost as much and end the same way.
        cut = reason == Finish.LENGTH
        missing = NO_ANSWER if said.strip() else "malformed answer: empty text"
        return _Failure(f"{missing}{' at max_tokens' if cut else ''}", not cut, **spent)
    return Completion(
        text=text.encode("utf-8", "replace").decode(),  # Lone surrogates fit neither SQLite nor Parquet.
        model=model,
        prompt_tokens=prompt,
        completion_tokens=completion,
        finish_reason=Finish.LENGTH if reason == Finish.LENGTH else Finish.STOP,
    )


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _seconds(retry_after: str, date: str = "") -> float:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; 0 if it says neither.

    A date is compared with the `Date` of the same answer, so that no clock of ours can be wrong about it.

    >>> _seconds("2"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("soon")
    (2.0, 0.0, 0.0)
    >>> _seconds("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:30 GMT")
    30.0
    """
    if re.fullmatch(r"\d{1,9}(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    at = _timestamp(retry_after)
    return 0.0 if at is None else max(0.0, at - (_timestamp(date) or time.time()))


def _timestamp(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
