"""Why an attempt failed: in go the status, headers and body of a refusal, out comes the failure that they report."""

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...redaction import excerpt, redact
from .usage import Usage, read_usage

SAID = 65_536  # Bytes of an error that are read.
ODD = 2  # Most retries of a whole body that is no answer: it comes from a proxy, a portal or a broken server.
_RETRIED = {408, 409, 425, 429}  # and everything from 500 up, except for
_NEVER = {501, 505, 511}
_BUSY = {429, 503, 529}
# Statuses from 500 up that say that no model has seen the request; the others may be charged for.
_UNSEEN = _NEVER | _BUSY | {521, 522, 523, 525, 526}
# Statuses that may depend on the request: on its content, length or parameters.
_ABOUT_REQUEST = {200, 400, 403, 413, 414, 422, 451}
_OVERLOADED = re.compile(r"overload|capacity|rate.?limit|too many requests|unavailable|resource.exhausted", re.I)
# Lack of credit does not pass by waiting, whatever its status: OpenAI gives it 429, Anthropic 400, others 403 or 500.
_NO_CREDIT = re.compile(
    r"insufficient[_ ](?:quota|credit|balance|fund)|billing_(?:hard_limit|not_active)|credit balance is too low"
    r"|exceeded_current_quota|spend(?:ing)?[_ ]limit|api usage limits|arrearage"
    r"|(?:exceeded|used|out of|exhausted|depleted|\bno)\b[^.]{0,60}\bcredits\b",
    re.I,
)
_TOO_LONG = re.compile(
    rb"context[ _](?:length|window|size)|maximum context|(?:prompt|input) is too long|max_new_tokens", re.I
)
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIME = r"(?:\d+(?:\.\d+)?\s*(?:ms|milli|[smhd])[a-z]*[\s,]*)+"
# Google names the wait in a field, OpenAI and Groq in a sentence.
_WAIT = re.compile(rf'"retryDelay"\s*:\s*"({_TIME})"|\b(?:try again|retry)(?: in| after)? ({_TIME})', re.I)
_LONGEST = 1e9  # Seconds; more is a date in disguise, or nonsense.


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


def undecodable(reason: str) -> Failure:
    """The failure of a body whose `Content-Encoding` it does not have, or that this process can't decompress."""
    return Failure(f"malformed answer: {reason}", True, status=200, retries=ODD, uncounted=True)


def charged(usage: Usage | None, status: int) -> dict[str, Any]:
    """What a failure with this status was charged, as its fields."""
    may_cost = status in (200, 408) or (status >= 500 and status not in _UNSEEN)
    return {**counts(usage), "uncounted": usage is None and may_cost}


def counts(usage: Usage | None) -> dict[str, Any]:
    """The tokens of an answer or a failure, as its fields."""
    if usage is None:
        return {}
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "cached_tokens": usage.cached}


def reported_error(answer: object, token: str) -> Failure | None:
    """The failure that a body with status 200 reports: some gateways put their errors there.

    Args:
        answer: The JSON of the body.
        token: Token that was sent, to redact it.
    """
    if isinstance(answer, list) and len(answer) == 1:  # As Google's servers do.
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    usage, error = read_usage(answer.get("usage")), _error(answer)
    if error is None:
        return None
    said = json.dumps(error)
    if answer.get("choices"):
        return Failure(f"an error ended the answer: {excerpt(said, token)}", status=200, **charged(usage, 200))
    codes = (_code(place) for place in (*_nested(error), answer))
    status = next((code for code in codes if code), 200)
    if _NO_CREDIT.search(said):
        status = 402
    elif _OVERLOADED.search(said) and (status == 200 or status >= 500):
        status = 503
    reason = f"an error with status 200: {excerpt(said, token)}"
    # Without a status it may be anything.
    retry, retries = status == 200 or _passes(status), ODD if status == 200 else None
    return Failure(reason, retry, _told_wait(status, said), status, retries=retries, **charged(usage, status))


def _error(answer: Mapping[str, Any]) -> object:
    """The error of a body; beside choices, other fields than `error` are remarks."""
    names = ("error",) if answer.get("choices") else ("error", "errors", "detail", "message")
    found = ((name, answer.get(name)) for name in names)
    return next((value for name, value in found if value and (name != "message" or isinstance(value, str))), None)


def _nested(error: object) -> Iterator[Mapping[str, Any]]:
    """The mappings of an error, the outermost first; some servers pack the error of another into their own."""
    while isinstance(error, dict | list) and error:
        if isinstance(error, dict):
            yield error
            error = error.get("error")
        else:
            error = error[0]


def _code(place: Mapping[str, Any]) -> int:
    """The status of an error that a mapping names, 0 if it names none."""
    said = (str(place.get(name)) for name in ("code", "status", "status_code"))
    return next((int(code) for code in said if re.fullmatch(r"[45]\d\d", code)), 0)


def _passes(status: int) -> bool:
    """Whether a failure with this status may pass by itself."""
    return status in _RETRIED or (status >= 500 and status not in _NEVER)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes, token: str, variable: str | None) -> Failure:
    """The failure for a status other than 200, in the server's own words and without the token."""
    body, usage = body[:SAID], _usage_inside(body)
    said = body.decode("utf-8", "replace")
    kind = 402 if status >= 400 and _NO_CREDIT.search(said) else status
    reason = f"HTTP {status}: {_complaint(status, said, token, variable)}".removesuffix(": ")
    if 300 <= status < 400 and (place := headers.get("Location")):
        reason += f" (redirects to {excerpt(redact(place), token)}; correct base_url)"
    if status in (400, 413, 422) and _TOO_LONG.search(body):
        reason += " (lower max_tokens, or shorten the prompt)"
    wait = _seconds(headers.get("Retry-After", ""), headers.get("Date", "")) or _told_wait(status, said)
    if re.fullmatch(r"\d{1,9}", milliseconds := headers.get("Retry-After-Ms", "")):
        wait = max(wait, int(milliseconds) / 1000)
    return Failure(reason, _passes(kind), wait, kind, **charged(usage, kind))


def _usage_inside(body: bytes) -> Usage | None:
    """What a refusal says that it cost."""
    try:
        return read_usage(json.loads(body)["usage"]) if len(body) <= SAID else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _complaint(status: int, text: str, token: str, variable: str | None) -> str:
    if status != 401:
        return excerpt(text, token)
    # Servers often repeat part of a refused token, with stars or dots in place of the rest.
    text = excerpt(re.sub(r"\S*(?:\*\*|\.\.\.|…)\S*", "***", text[:4000]), token, shared=4)
    variable = variable or "api_key_env"
    hint = f"the token is the one in {variable}" if token else f"a token is wanted, but {variable} is not set"
    return f"{text} ({hint})".strip()


def _told_wait(status: int, said: str) -> float:
    """Seconds that the text of a busy endpoint asks to wait, 0 if it asks for none.

    >>> _told_wait(429, "Please try again in 1h3m7.5s."), _told_wait(503, "Please retry in 250ms.")
    (3787.5, 0.25)
    """
    if status not in _BUSY or (found := _WAIT.search(said)) is None:
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|milli|[smhd])", found[1] or found[2], re.I)
    return min(sum(float(number) * _UNITS[unit.lower()] for number, unit in parts), _LONGEST)


def _seconds(retry_after: str, date: str = "") -> float:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; 0 if it is neither.

    A date is compared with the `Date` header of the same answer, so the local clock does not matter.

    >>> _seconds("2"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("soon")
    (2.0, 0.0, 0.0)
    >>> _seconds("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:30 GMT")
    30.0
    """
    if number := re.fullmatch(r"(\d+(?:\.\d+)?)(?:\s*s(?:ec(?:onds?)?)?)?", retry_after.strip()):
        return min(float(number[1]), _LONGEST)
    at = _timestamp(retry_after)
    sent = _timestamp(date)
    return 0.0 if at is None else max(0.0, at - (time.time() if sent is None else sent))


def _timestamp(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
