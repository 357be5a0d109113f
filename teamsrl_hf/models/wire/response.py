"""The answer of an endpoint: in go the status, headers and body of a response, out comes a completion or a failure."""

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...redaction import excerpt, redact
from ...text.tokens import NO_ANSWER, without_thoughts
from ...types import Finish, Tier
from ..base import Completion
from .usage import Usage, read_usage, thoughts_of

_RETRIED = {408, 409, 429}  # and everything from 500 up
_BUSY = {429, 503, 529}
# Statuses from 500 up that say that no model has seen the request; the others may be charged for.
_UNSEEN = {501, 503, 505, 521, 522, 523, 525, 526, 529}
# Statuses that may depend on the request: on its content, length or parameters.
_ABOUT_REQUEST = {200, 400, 403, 413, 414, 422, 451}
# Finish reasons in lower case: the model ended its answer, or a limit on tokens cut it. All others are failures.
_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "end_of_text", "complete", "completed"}
_CUT = {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
_COMMENTS = re.compile(rb"\A(?:\s*:[^\n]*\n)+")  # Some gateways keep the connection open with these lines.
_OVERLOADED = re.compile(r"overload|at capacity|rate.?limit|too many requests|unavailable", re.I)
# Lack of credit does not pass by waiting, whatever its status: OpenAI gives it 429, Anthropic 400.
_NO_CREDIT = re.compile(
    r"insufficient[_ ](?:quota|credit|balance|fund)|billing_hard_limit|credit balance is too low", re.I
)
_TOO_LONG = re.compile(
    rb"context[ _](?:length|window|size)|maximum context|(?:prompt|input) is too long|max_new_tokens", re.I
)
_ODD = 2  # Most retries of a whole body that is no answer: it comes from a proxy, a portal or a broken server.


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed, whether to retry it, and how many seconds the server asks to wait.

    `retries` limits how often failures of this kind are retried; None leaves that to the client. `parameter` is one
    that the server refuses by name: without it, the request can be sent again at once. The tokens are those that the
    server counted and probably charges for; `uncounted` says that it may charge for an answer whose count got lost.
    `cached_tokens` and `estimated_tokens` are as in `base.Completion`.
    """

    reason: str
    retry: bool = False
    retry_after: float = 0.0
    status: int = 0
    gone: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int | None = None
    parameter: str | None = None
    uncounted: bool = False
    cached_tokens: int = 0
    estimated_tokens: tuple[int, int] = (0, 0)

    @property
    def busy(self) -> bool:
        """Whether the endpoint is overloaded or down, whatever the request."""
        return self.gone or self.status in _BUSY

    @property
    def about_request(self) -> bool:
        """Whether the failure may concern this request alone."""
        return self.status in _ABOUT_REQUEST


def read_answer(body: bytes, model: str, token: str, certain: bool = False) -> Completion | Failure:
    """The completion in the body of an answer with status 200, or why there is none.

    Args:
        body: The decompressed body.
        model: Name of the model for the completion.
        token: Token that was sent, to redact it.
        certain: Whether the model would give the same answer again, as at temperature 0.
    """
    said = _COMMENTS.sub(b"", body)
    if said.lstrip().startswith((b"data:", b"event:")):
        return Failure("the endpoint streams its answer, although it was not asked to", status=200, uncounted=True)
    try:
        answer = json.loads(said)
        if (error := _error_inside(answer, token)) is not None:
            return error
        usage = read_usage(answer.get("usage"))
        failed = partial(_failed, usage)
    except (ValueError, AttributeError, RecursionError):
        return _malformed(body, token)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, cut = _text(message.get("content")), str(choice.get("finish_reason")).lower() in _CUT
        problem, thoughts = _problem(choice, message, text, token), _has_thoughts(message, answer.get("usage"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return failed(_malformed(body, token).reason, True, retries=_ODD)
    if problem is not None:
        return failed(problem)
    thoughts, text = thoughts or text.strip() != "", without_thoughts(text)
    if not text.strip():
        missing = NO_ANSWER if thoughts else "empty answer"
        # An answer cut before its first word, for example while thinking, would cost as much and end the same way.
        return failed(f"{missing}{' at max_tokens' if cut else ''}", not (cut or certain), retries=1)
    if "\0" in text:  # Neither terminals nor tokenizers nor databases agree on such a text.
        return failed("malformed answer: a zero byte in the text", not certain, retries=_ODD)
    return Completion(
        text=text.encode("utf-8", "replace").decode(),  # Lone surrogates fit neither SQLite nor Parquet.
        model=model,
        finish_reason=Finish.LENGTH if cut else Finish.STOP,
        tier=Tier.FLEX if answer.get("service_tier") == Tier.FLEX else Tier.STANDARD,
        **_counts(usage),
    )


def _counts(usage: Usage | None) -> dict[str, Any]:
    """The tokens of an answer or a failure, as its fields."""
    if usage is None:
        return {}
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "cached_tokens": usage.cached}


def _charged(usage: Usage | None, status: int) -> dict[str, Any]:
    """What a failure with this status was charged, as its fields."""
    may_cost = status in (200, 408) or (status >= 500 and status not in _UNSEEN)
    return {**_counts(usage), "uncounted": usage is None and may_cost}


def _failed(usage: Usage | None, reason: str, retry: bool = False, retries: int | None = None) -> Failure:
    """The failure of an answer with status 200, which was charged."""
    return Failure(reason, retry, status=200, retries=retries, **_charged(usage, 200))


def _malformed(body: bytes, token: str) -> Failure:
    """The failure of a body that is no answer. JSON that ends in the middle was cut on its way, and is retried."""
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    cut = not start or (start == b"{" and not body.rstrip().endswith(b"}"))
    reason = f"malformed answer: {excerpt(body.decode('utf-8', 'replace'), token) or 'an empty body'}"
    page = start == b"<"  # Of a portal or a proxy: no model has seen the request.
    return Failure(reason, True, status=200, retries=None if cut else _ODD, uncounted=not page)


def undecodable(reason: str) -> Failure:
    """The failure of a body whose `Content-Encoding` it does not have, or that this process can't decompress."""
    return Failure(f"malformed answer: {reason}", True, status=200, retries=_ODD, uncounted=True)


def _text(content: object) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))
    return content if isinstance(content, str) else ""


def _has_thoughts(message: dict, usage: object) -> bool:
    """Whether the model thought, by a field beside the text or by the number of tokens."""
    fields = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
    content = message.get("content")
    parts = [part.get("type") for part in content] if isinstance(content, list) else []
    thought = any(message.get(name) for name in fields) or not {"thinking", "reasoning"}.isdisjoint(parts)
    return thought or thoughts_of(usage) > 0


def _problem(choice: dict, message: dict, text: str, token: str) -> str | None:
    """Why a choice is no answer, or None if the model ended it or was cut; a retry would change nothing."""
    reason = choice.get("finish_reason")
    if choice.get("error"):
        return f"an error ended the answer: {excerpt(json.dumps(choice['error']), token)}"
    if reason == "content_filter":
        return "the endpoint's content filter stopped the answer"
    if not text.strip() and (refusal := _refusal(message)):
        return f"the model refused: {excerpt(refusal, token)}"
    called = message.get("tool_calls") or message.get("function_call")
    if reason in ("tool_calls", "function_call") or (not text.strip() and called):
        return "the model answered with a tool call"
    if reason is None and not text.strip():
        return None  # Nothing at all: an empty answer, which the caller names.
    if str(reason).lower() not in _ENDED | _CUT:
        return f"the answer ended for an unknown reason: {excerpt(json.dumps(reason), token)}"
    return None


def _refusal(message: dict) -> str:
    """The model's own refusal, which some servers put into a field or a part of its own."""
    content = message.get("content")
    parts = [part.get("refusal") for part in content] if isinstance(content, list) else []
    return next((str(said) for said in (message.get("refusal"), *parts) if said), "")


def _error_inside(answer: dict, token: str) -> Failure | None:
    """The failure that a body with status 200 reports: some gateways put their errors there."""
    error = answer.get("error")
    if not error or answer.get("choices"):
        return None
    code, said = str(error.get("code", "")) if isinstance(error, dict) else "", json.dumps(error)
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else 200
    if _NO_CREDIT.search(said):
        status = 402
    elif _OVERLOADED.search(said) and (status == 200 or status >= 500):
        status = 503
    # Without a status it may be anything.
    retry = status == 200 or status in _RETRIED or status >= 500
    retries = _ODD if status == 200 else None
    charged = _charged(read_usage(answer.get("usage")), status)
    return Failure(
        f"an error with status 200: {excerpt(said, token)}", retry, status=status, retries=retries, **charged
    )


def read_refusal(status: int, headers: Mapping[str, str], body: bytes, token: str, variable: str | None) -> Failure:
    """The failure for a status other than 200, in the server's own words and without the token."""
    spent = status in (400, 403, 429) and _NO_CREDIT.search(body.decode("utf-8", "replace")) is not None
    retry = (status in _RETRIED or status >= 500) and not spent
    reason = f"HTTP {status}: {_complaint(status, body, token, variable)}".removesuffix(": ")
    if 300 <= status < 400 and (place := headers.get("Location")):
        reason += f" (redirects to {excerpt(redact(place), token)}; correct base_url)"
    if status in (400, 413, 422) and _TOO_LONG.search(body):
        reason += " (lower max_tokens, or shorten the prompt)"
    wait = _seconds(headers.get("Retry-After", ""), headers.get("Date", ""))
    if re.fullmatch(r"\d{1,9}", milliseconds := headers.get("Retry-After-Ms", "")):
        wait = max(wait, int(milliseconds) / 1000)
    return Failure(reason, retry, wait, 402 if spent else status, **_charged(_usage_inside(body), status))


def _usage_inside(body: bytes) -> Usage | None:
    """What a refusal says that it cost."""
    try:
        return read_usage(json.loads(body)["usage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


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
