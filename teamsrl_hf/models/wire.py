"""The wire of an OpenAI-compatible endpoint: a request becomes JSON, and what comes back a completion or a failure."""

import email.utils
import ipaddress
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import UserError
from ..redaction import excerpt, redact, token_variable
from ..text.tokens import NO_ANSWER, without_thoughts
from ..types import Finish
from .base import Completion, Request, request_seed

if TYPE_CHECKING:
    from aiohttp import ClientSession

_RETRIED = {408, 409, 429}  # and everything from 500 up
_BUSY = {429, 503, 529}
# Statuses that may depend on the request: on its content, length or parameters.
_ABOUT_REQUEST = {200, 400, 403, 413, 414, 422, 451}
# Finish reasons in lower case: the model ended its answer, or a limit on tokens cut it. All others are failures.
_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "end_of_text", "complete", "completed"}
_CUT = {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
_COMMENTS = re.compile(rb"\A(?:\s*:[^\n]*\n)+")  # Some gateways keep the connection open with these lines.


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed, whether to retry it, and how many seconds the server asks to wait.

    The tokens are those that the server counted and probably charges for.
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
        """Whether the endpoint is overloaded or down, whatever the request."""
        return self.gone or self.status in _BUSY

    @property
    def about_request(self) -> bool:
        return self.status in _ABOUT_REQUEST


async def open_sessions(timeout: float) -> AsyncGenerator["ClientSession", None]:
    """One session. A generator, because `asyncio.run` closes those that are still open when its loop ends."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout),
    ) as session:
        yield session


def key_variable(base_url: str, given: str | None) -> str | None:
    """Name of the variable that holds the token for this endpoint, or None when no token may be sent."""
    scheme, host = _host(base_url)
    if not host or set(base_url) & set("@?#"):
        given = "one with '@', '?' or '#'" if set(base_url) & set("@?#") else repr(redact(base_url))
        raise UserError(f"base_url must be like 'https://host/v1', not {given}; put a token into the environment.")
    name = _default_variable(host) if given is None else given and token_variable(given)
    if scheme == "http" and not _is_loopback(host):
        if given or (name and os.environ.get(name)):
            raise UserError(
                f"The token in {name} would go over plain http to {host}; use https, or api_key_env='' to send none."
            )
        return None
    return name or None


def _host(url: str) -> tuple[str, str]:
    """Scheme and host of a URL; both empty where it is no web address."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # Raises if it is no number.
    except ValueError:
        return "", ""
    return (parts.scheme, parts.hostname) if parts.scheme in ("http", "https") and parts.hostname else ("", "")


def _default_variable(host: str) -> str:
    if host == "huggingface.co" or host.endswith(".huggingface.co"):
        return "HF_TOKEN"
    return "OPENAI_API_KEY" if host == "api.openai.com" else "TEAMSRL_API_KEY"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def payload(request: Request, model: str) -> dict[str, object]:
    """The body of a chat completion request."""
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


def read_answer(body: bytes, model: str, token: str) -> Completion | Failure:
    """The completion in the body of an answer with status 200, or why there is none."""
    if body.lstrip().startswith((b"data:", b"event:")):
        return Failure("the endpoint streams its answer, although it was not asked to", status=200)
    try:
        answer = json.loads(_COMMENTS.sub(b"", body))
        if (error := _error_inside(answer, token)) is not None:
            return error
        choice = answer["choices"][0]
        message = choice["message"]
        text, reason = _text(message["content"]), choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Failure(f"malformed answer: {excerpt(body.decode('utf-8', 'replace'), token)}", True, status=200)
    prompt, completion = _tokens(answer.get("usage"))
    failed = partial(Failure, status=200, prompt_tokens=prompt, completion_tokens=completion)
    if (problem := _problem(choice, message, text, token)) is not None:
        return failed(problem)
    cut = str(reason).lower() in _CUT
    said, text = text, without_thoughts(text)
    if not text.strip():
        # Cut before its first word, for example while thinking: a retry would cost as much and end the same way.
        missing = NO_ANSWER if said.strip() else "malformed answer: empty text"
        return failed(f"{missing}{' at max_tokens' if cut else ''}", not cut)
    return Completion(
        text=text.encode("utf-8", "replace").decode(),  # Lone surrogates fit neither SQLite nor Parquet.
        model=model,
        prompt_tokens=prompt,
        completion_tokens=completion,
        finish_reason=Finish.LENGTH if cut else Finish.STOP,
    )


def _text(content: object) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))
    return content if isinstance(content, str) else ""


def _problem(choice: dict, message: dict, text: str, token: str) -> str | None:
    """Why a choice is no answer, or None if the model ended it or was cut; a retry would change nothing."""
    reason = choice.get("finish_reason")
    if choice.get("error"):
        return f"an error ended the answer: {excerpt(json.dumps(choice['error']), token)}"
    if reason == "content_filter":
        return "the endpoint's content filter stopped the answer"
    if not text.strip() and message.get("refusal"):
        return f"the model refused: {excerpt(str(message['refusal']), token)}"
    if reason in ("tool_calls", "function_call") or (not text.strip() and message.get("tool_calls")):
        return "the model answered with a tool call"
    if reason is None and not text.strip():
        return None  # Nothing at all: an empty answer, which the caller names.
    if str(reason).lower() not in _ENDED | _CUT:
        return f"the answer ended for an unknown reason: {excerpt(json.dumps(reason), token)}"
    return None


def _error_inside(answer: dict, token: str) -> Failure | None:
    """The failure that a body with status 200 reports: some gateways put their errors there."""
    error = answer.get("error")
    if not error or answer.get("choices"):
        return None
    code = str(error.get("code", "")) if isinstance(error, dict) else ""
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else 200
    if "insufficient_quota" in json.dumps(error):
        status = 402
    # Without a status it may be anything, so it is retried like a malformed answer.
    retry = status == 200 or status in _RETRIED or status >= 500
    return Failure(f"an error with status 200: {excerpt(json.dumps(error), token)}", retry, status=status)


def _tokens(usage: object) -> tuple[int, int]:
    """Tokens of the prompt and of the answer; thoughts that only the total counts are part of the answer."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return prompt, max(completion, _count(usage, "total_tokens") - prompt)


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def read_refusal(status: int, headers: Mapping[str, str], body: bytes, token: str, variable: str | None) -> Failure:
    """The failure for a status other than 200, in the server's own words and without the token."""
    # Lack of credit does not pass by waiting, although OpenAI gives it the status 429.
    spent = status == 429 and b"insufficient_quota" in body
    retry = (status in _RETRIED or status >= 500) and not spent
    reason = f"HTTP {status}: {_complaint(status, body, token, variable)}".removesuffix(": ")
    if 300 <= status < 400 and (place := headers.get("Location")):
        reason += f" (redirects to {excerpt(redact(place), token)}; correct base_url)"
    if status == 400 and re.search(rb"context (?:length|window|size)|maximum context", body, re.I):
        reason += " (lower max_tokens, or shorten the prompt)"
    wait = _seconds(headers.get("Retry-After", ""), headers.get("Date", ""))
    return Failure(reason, retry, wait, 402 if spent else status)


def _complaint(status: int, body: bytes, token: str, variable: str | None) -> str:
    text = body.decode("utf-8", "replace")
    if status != 401:
        return excerpt(text, token)
    # Servers often repeat part of a refused token, with stars or dots in place of the rest.
    text = excerpt(re.sub(r"\S*(?:\*\*|\.\.\.|…)\S*", "***", text[:4000]), token, shared=4)
    variable = variable or "api_key_env"
    hint = f"the token is the one in {variable}" if token else f"a token is wanted, but {variable} is not set"
    return f"{text} ({hint})".strip()


def _seconds(retry_after: str, date: str = "") -> float:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; 0 if it is neither.

    A date is compared with the `Date` header of the same answer, so the local clock does not matter.

    >>> _seconds("2"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("soon")
    (2.0, 0.0, 0.0)
    >>> _seconds("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:30 GMT")
    30.0
    """
    if re.fullmatch(r"\d{1,9}(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    at = _timestamp(retry_after)
    sent = _timestamp(date)
    return 0.0 if at is None else max(0.0, at - (time.time() if sent is None else sent))


def _timestamp(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
