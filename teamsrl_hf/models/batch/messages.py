"""Anthropic's form of batches: the requests travel with the creation, and the list of batches carries no mark of ours.

platform.claude.com/docs/en/api/messages/batches. Requests are those of its Messages API, not of chat completions.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .files import timestamp
from .job import Form, Job, Json, Result, State, number

_PATH = "messages/batches"
_STATES = {"in_progress": State.RUNNING, "canceling": State.RUNNING, "ended": State.COMPLETED}
_NOT_RUN = ("expired", "canceled")
# Statuses that a call of its own would have had, by type of error.
_STATUS = {"invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403}
_STATUS |= {"not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "timeout_error": 504}
_STATUS |= {"api_error": 500, "overloaded_error": 529}


def _body(chat: dict[str, Any]) -> dict[str, Any]:
    """The body of a Messages request from that of a chat completion; a seed is left out, as there is none.

    >>> _body({"model": "m", "messages": [{"role": "system", "content": "Be brief."}], "max_tokens": 9, "seed": 1})
    {'model': 'm', 'messages': [], 'max_tokens': 9, 'system': 'Be brief.'}
    """
    body = {name: value for name, value in chat.items() if name != "seed"}
    body["messages"] = [message for message in chat["messages"] if message["role"] != "system"]
    if system := "\n\n".join(message["content"] for message in chat["messages"] if message["role"] == "system"):
        body["system"] = system
    return body


def _line(name: str, body: Json) -> dict[str, Any]:
    return {"custom_id": name, "params": body}


def _creation(shard: str, file_id: str | None, requests: Sequence[Json]) -> dict[str, Any]:
    return {"requests": list(requests)}


def _read_job(answer: Json) -> Job:
    name, status, counts = str(answer["id"]), str(answer["processing_status"]), answer.get("request_counts") or {}
    state = _STATES.get(status, State.UNKNOWN)
    ended = state is State.COMPLETED
    if ended and answer.get("cancel_initiated_at") and counts.get("canceled"):
        state = State.CANCELLED
    elif ended and counts.get("expired"):
        state = State.EXPIRED
    done = sum(number(counts.get(kind)) for kind in ("succeeded", "errored", "canceled", "expired"))
    return Job(
        name,
        status,
        state,
        done,
        done + number(counts.get("processing")),
        results=(f"{_PATH}/{quote(name, safe='')}/results",) if ended else (),
        created=timestamp(answer.get("created_at")),
    )


def _read_result(line: Json) -> Result:
    name, result = str(line.get("custom_id")), line.get("result")
    result = result if isinstance(result, Mapping) else {}
    kind = result.get("type")
    if kind == "succeeded" and isinstance(result.get("message"), Mapping):
        return Result(name, 200, _as_chat(result["message"]))
    if kind in _NOT_RUN:
        return Result(name, 0, {})
    # The error lies in an error response, and has a type itself.
    error = result.get("error")
    error = error.get("error") or error if isinstance(error, Mapping) else {}
    return Result(name, _STATUS.get(str(error.get("type")), 500), {"error": error or dict(line)})


def _as_chat(message: Json) -> dict[str, Any]:
    """A Messages answer as that of a chat completion."""
    usage = message.get("usage") or {}
    cached = number(usage.get("cache_read_input_tokens"))
    prompt = cached + sum(number(usage.get(name)) for name in ("input_tokens", "cache_creation_input_tokens"))
    counts = {"prompt_tokens": prompt, "completion_tokens": number(usage.get("output_tokens"))}
    choice = {"message": {"role": "assistant", "content": message.get("content")}}
    return {
        "choices": [{**choice, "finish_reason": message.get("stop_reason")}],
        "usage": {**counts, "prompt_tokens_details": {"cached_tokens": cached}},
    }


MESSAGES = Form(
    "messages",
    _PATH,
    None,
    {"anthropic-version": "2023-06-01"},
    "x-api-key",
    "after_id",
    False,
    _body,
    _line,
    _creation,
    _read_job,
    _read_result,
)
