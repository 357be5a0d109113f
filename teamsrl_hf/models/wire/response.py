"""The answer of an endpoint: in go the status, headers and body of a response, out comes a completion or a failure."""

import json
import re
from functools import partial

from ...redaction import excerpt
from ...text.tokens import NO_ANSWER, without_thoughts
from ...types import Finish, Tier
from ..base import Completion
from .failure import ODD, SAID, Failure, charged, counts, reported_error
from .usage import Usage, read_usage, thoughts_of

ANSWERED = {200, 201, 203}  # Statuses of answers.
# Finish reasons in lower case: the model ended its answer, or a limit on tokens cut it. All others are failures.
_ENDED = {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "end_of_text", "complete", "completed"}
_CUT = {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
_CUT |= {"model_context_window_exceeded"}
_CALLED = {"tool_calls", "tool_call", "tool_use", "function_call"}
_FILTERED = {"content_filter", "content_filtered"}
_COMMENTS = re.compile(rb"\A(?:\s*:[^\n]*\n)+")  # Some gateways keep the connection open with these lines.
_STREAM = re.compile(rb"\A\s*(?:data|event|id|retry):")


def read_answer(body: bytes, model: str, token: str, certain: bool = False) -> Completion | Failure:
    """The completion in the body of an answer with status 200, or why there is none.

    Args:
        body: The decompressed body.
        model: Name of the model for the completion.
        token: Token that was sent, to redact it.
        certain: Whether the model would give the same answer again, as at temperature 0.
    """
    said = _COMMENTS.sub(b"", body)
    if _STREAM.match(said):
        return _streamed(said, token)
    try:
        answer = json.loads(said)
        if (error := reported_error(answer, token)) is not None:
            return error
        usage = read_usage(answer.get("usage"))
        failed = partial(_failed, usage)
    except (ValueError, AttributeError, RecursionError) as error:
        return _malformed(body, token, whole=getattr(error, "msg", "") == "Extra data")
    try:
        choices = answer["choices"]
        choice = next((one for one in choices if one.get("index") == 0), choices[0])
        message = choice["message"]
        text, cut = _text(message.get("content")), str(choice.get("finish_reason")).lower() in _CUT
        problem, thoughts = _problem(choice, message, text, token), _has_thoughts(message, answer.get("usage"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return failed(_malformed(body, token).reason, True, retries=ODD)
    if problem is not None:
        return failed(problem)
    thoughts, text = thoughts or text.strip() != "", without_thoughts(text)
    if not text.strip():
        missing = NO_ANSWER if thoughts else "empty answer"
        # An answer cut before its first word, for example while thinking, would cost as much and end the same way.
        return failed(f"{missing}{' at max_tokens' if cut else ''}", not (cut or certain), retries=1)
    if "\0" in text:  # Neither terminals nor tokenizers nor databases agree on such a text.
        return failed("malformed answer: a zero byte in the text", not certain, retries=ODD)
    return Completion(
        text=text.encode("utf-8", "replace").decode(),  # Lone surrogates fit neither SQLite nor Parquet.
        model=model,
        finish_reason=Finish.LENGTH if cut else Finish.STOP,
        tier=Tier.FLEX if answer.get("service_tier") == Tier.FLEX else Tier.STANDARD,
        **counts(usage),
    )


def _failed(usage: Usage | None, reason: str, retry: bool = False, retries: int | None = None) -> Failure:
    """The failure of an answer with status 200, which was charged."""
    return Failure(reason, retry, status=200, retries=retries, **charged(usage, 200))


def _streamed(body: bytes, token: str) -> Failure:
    """The failure of a stream of events: the error that it carries, or that it is one."""
    for line in re.findall(rb"^data:\s*(\{.*)", body[:SAID], re.M):
        try:
            if (error := reported_error(json.loads(line), token)) is not None:
                return error
        except (ValueError, RecursionError):
            continue
    return Failure("the endpoint streams its answer, although it was not asked to", status=200, uncounted=True)


def _malformed(body: bytes, token: str, whole: bool = False) -> Failure:
    """The failure of a body that is no answer. JSON that ends in the middle was cut on its way, and is retried.

    Args:
        whole: Whether it begins with whole JSON.
    """
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    cut = not start or (start == b"{" and not whole and not body.rstrip().endswith(b"}"))
    reason = f"malformed answer: {excerpt(body[:SAID].decode('utf-8', 'replace'), token) or 'an empty body'}"
    page = start == b"<"  # Of a portal or a proxy: no model has seen the request.
    return Failure(reason, True, status=200, retries=None if cut else ODD, uncounted=not page)


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
    name = reason.lower() if isinstance(reason, str) else ""
    if choice.get("error"):
        return f"an error ended the answer: {excerpt(json.dumps(choice['error']), token)}"
    if name in _FILTERED:
        return "the endpoint's content filter stopped the answer"
    if not text.strip() and (refusal := _refusal(message)):
        return f"the model refused: {excerpt(refusal, token)}"
    called = message.get("tool_calls") or message.get("function_call")
    if name in _CALLED or (not text.strip() and called):
        return "the model answered with a tool call"
    if reason is None and not text.strip():
        return None  # Nothing at all: an empty answer, which the caller names.
    if name not in _ENDED | _CUT:
        return f"the answer ended for an unknown reason: {excerpt(json.dumps(reason), token)}"
    return None


def _refusal(message: dict) -> str:
    """The model's own refusal, which some servers put into a field or a part of its own."""
    content = message.get("content")
    parts = [part.get("refusal") for part in content] if isinstance(content, list) else []
    return next((str(said) for said in (message.get("refusal"), *parts) if said), "")
