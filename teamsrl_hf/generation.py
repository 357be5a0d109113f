"""Models as functions: one request in, one completion out, asynchronously; any OpenAI-compatible endpoint is one.

Requests go out through aiohttp because it was measured: against one local endpoint that answers at once it made 1796
requests/s, huggingface_hub's AsyncInferenceClient 232 and openai's AsyncOpenAI 61.
"""

import asyncio
import email.utils
import ipaddress
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from .operations import Messages

_RETRIED = {408, 409, 429}  # and everything from 500 up
_SECRETS = re.compile(r"(?i)\bbearer\s+\S+|\b(?:hf_|sk-)[\w.*-]+")


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters sent with a request. `seed` is sent only when given."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        role: Who is asked: "instructor", "reviewer", "expert" or "judge".
        messages: Chat messages, oldest first.
        sampling: How to sample.
        sample_index: Which of several answers to the same question; part of the ledger's key.
    """

    role: str
    messages: Messages
    sampling: Sampling = field(default_factory=Sampling)
    sample_index: int = 0


@dataclass(frozen=True)
class Completion:
    """One answer. `error` names what went wrong when there is no answer; a failed call is a value, not an exception.

    `finish_reason` is "stop", or "length" when the answer was cut by `max_tokens`.
    """

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    error: str | None = None


class Generator(Protocol):
    """Anything that answers a request. `model` names it in ledgers, rows and cards.

    One that never waits may say so with an attribute `immediate = True`; it is then called without an event loop.
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
        ValueError: `answers` is a single text, or (when called) no answer is left.
    """

    immediate = True

    def __init__(
        self, answers: Callable[[Request], str | Completion] | Iterable[str | Completion], model: str = "scripted"
    ):
        if isinstance(answers, str):
            raise ValueError(f"The answers are one text, {answers[:40]!r}; put it in a list, or pass a function.")
        self.model = model
        self.calls = 0
        self._answers = answers if callable(answers) else iter(answers)

    async def __call__(self, request: Request) -> Completion:
        self.calls += 1
        answer = self._answers(request) if callable(self._answers) else next(self._answers, None)
        if answer is None:
            raise ValueError(f"No scripted answer for call {self.calls} (role {request.role!r}); script more answers.")
        return answer if isinstance(answer, Completion) else Completion(answer, self.model)


@dataclass(frozen=True)
class _Failure:
    """Why one attempt gave no answer, whether another may, and how many seconds the server wants it to wait."""

    reason: str
    retry: bool = False
    retry_after: float = 0.0


class EndpointGenerator:
    """A chat model behind any OpenAI-compatible endpoint. What fails comes back as a `Completion` with `error`.

    Timeouts, broken connections, malformed answers and the statuses 408, 409, 429 and 5xx are tried again, after
    exponentially growing waits and never before a `Retry-After` has passed; other statuses are final. A server that
    charges for an answer it could not deliver charges for each attempt. A waiting request keeps its place among the
    `concurrency`, so that a throttled endpoint is asked less. Use it from one event loop at a time.

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

    Raises:
        ValueError: An argument is out of range, or a token would travel over plain http to another machine.
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
    ):
        if concurrency < 1 or timeout <= 0 or min(max_retries, backoff, max_wait) < 0:
            raise ValueError(
                "concurrency and timeout must be above 0, max_retries, backoff and max_wait at least 0, not "
                f"{concurrency}, {timeout}, {max_retries}, {backoff} and {max_wait}."
            )
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.api_key_env = _key_variable(base_url, api_key_env)
        self.concurrency, self.timeout = concurrency, timeout
        self.max_retries, self.backoff, self.max_wait = max_retries, backoff, max_wait
        self._random = random.Random()  # Its own: jitter must not shift the random numbers of a training run.
        self._loop = self._sessions = self._session = self._slots = None

    async def __call__(self, request: Request) -> Completion:
        session, slots = await self._open()
        async with slots:
            for attempt in range(self.max_retries + 1):
                answer = await self._attempt(session, request)
                if isinstance(answer, Completion):
                    return answer
                if not answer.retry or attempt == self.max_retries:
                    break
                if answer.retry_after > self.max_wait:
                    answer = _Failure(f"{answer.reason} (to be tried again in {answer.retry_after:.0f} s)")
                    break
                delay = self.backoff * 2**attempt * self._random.uniform(0.5, 1)
                await asyncio.sleep(min(answer.retry_after + delay, self.max_wait))
        tries = f" after {attempt + 1} attempts" if attempt else ""
        return Completion("", self.model, error=f"{answer.reason}{tries}")

    async def close(self) -> None:
        """Close the connections now rather than when the event loop ends. The next call opens new ones."""
        self._loop = None
        if self._sessions is not None:
            await self._sessions.aclose()

    async def _open(self):
        """The session and semaphore of the running loop: neither works in another loop than its first."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._sessions = _sessions(self.timeout)
            self._session = await anext(self._sessions)
            self._slots, self._loop = asyncio.Semaphore(self.concurrency), loop
        return self._session, self._slots

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
            return _Failure(_excerpt(f"connection failed: {type(error).__name__}: {error}", token), retry=not final)
        if response.status == 200:
            return _read_answer(body, self.model, token)
        retry = response.status in _RETRIED or response.status >= 500
        reason = f"HTTP {response.status}: {self._complaint(response.status, body, token)}".removesuffix(": ")
        return _Failure(reason, retry, _seconds(response.headers.get("Retry-After", "")))

    def _complaint(self, status: int, body: bytes, token: str) -> str:
        if status != 401:
            return _excerpt(body.decode("utf-8", "replace"), token)
        if not token:
            return f"a token is wanted, but {self.api_key_env or 'api_key_env'} is not set"
        # Nothing of the body: servers like to repeat the token they refuse, or a part of it.
        return f"the endpoint refused the token in {self.api_key_env}"


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
        shown = "one with '@', '?' or '#'" if set(base_url) & set("@?#") else repr(base_url)
        raise ValueError(f"base_url must be like 'https://host/v1', not {shown}; put a token into the environment.")
    host = parts.hostname
    name = _default_variable(host) if given is None else given
    if parts.scheme == "http" and not _is_loopback(host):
        if given or (name and os.environ.get(name)):
            raise ValueError(
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
        return _Failure(f"malformed answer: {_excerpt(body.decode('utf-8', 'replace'), token)}", retry=True)
    if reason == "content_filter":
        return _Failure("the endpoint's content filter stopped the answer")
    if not isinstance(text, str) or not text.strip():
        # Cut before its first word (by thinking, say): each further attempt would cost as much and end the same way.
        cut = reason == "length"
        return _Failure(f"malformed answer: empty text{' at max_tokens' if cut else ''}", retry=not cut)
    return Completion(
        text=text.encode("utf-8", "replace").decode(),  # Lone surrogates fit neither SQLite nor Parquet.
        model=model,
        prompt_tokens=_count(answer.get("usage"), "prompt_tokens"),
        completion_tokens=_count(answer.get("usage"), "completion_tokens"),
        finish_reason="length" if reason == "length" else "stop",
    )


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _seconds(retry_after: str) -> float:
    """Seconds from now that a `Retry-After` header asks for, given as seconds or as a date; 0 if it says neither.

    >>> _seconds("2"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("soon")
    (2.0, 0.0, 0.0)
    """
    if re.fullmatch(r"\d{1,9}(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _excerpt(text: str, token: str) -> str:
    """One line, at most 200 characters, without tags, tokens, or words that share six characters with our token."""
    size = min(6, len(token))
    parts = {token[start : start + size] for start in range(len(token) - size + 1)} - {""}
    text = _SECRETS.sub("***", re.sub(r"<[^>]*>", " ", text[:4000]))
    words = re.split(r"([\s\"',;<>(){}]+)", text)
    shown = "".join("***" if any(part in word for part in parts) else word for word in words)
    return " ".join("".join(char if char.isprintable() else " " for char in shown).split())[:200]
