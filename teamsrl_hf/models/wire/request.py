"""The body of a chat completion request: in go a request and what an endpoint wants of it, out comes the JSON."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import UserError, did_you_mean
from ..base import Request, request_seed

# The two names of the limit on an answer's tokens; servers know one or both.
LIMITS = ("max_tokens", "max_completion_tokens")
CHOICES = ("structured_outputs", "guided_choice")
_OPTIONAL = ("temperature", "top_p", "seed", *LIMITS)
# They would change what is paid for, or the form of the answer.
_RESERVED = ("model", "messages", "stream", "n", *LIMITS)
_UNSUPPORTED = re.compile(
    r"unsupported|(?:not|n't) (?:currently )?support|not supported|unrecogni[sz]ed|unknown|unexpected|deprecated"
    r"|not (?:permitted|allowed|accepted|available)|extra (?:inputs|fields)|extra_forbidden|no longer"
    r"|(?:cannot|can't|can not) (?:both )?be (?:used|set|specified|passed)"
    r"|only (?:the default|[\w.'=]+ is (?:allowed|supported|permitted))",
    re.I,
)
_OF_VALUE = re.compile(r"(?:unsupported|invalid)[_ ]value", re.I)
_EITHER = re.compile(r"\bboth\b|only (?:use )?one", re.I)


@dataclass(frozen=True)
class Dialect:
    """What one endpoint wants of a request beyond the model, the messages and the sampling parameters.

    Attributes:
        extra_body: Fields to add to the body; they win over sampling parameters.
        max_tokens_field: Name of the limit on an answer's tokens.
        drop: Parameters to leave out.
        system: Text of a system message before the messages, or None.
        reasoning_effort: Value of that field, or None.
        choices: In which form `Request.choices` are sent; None: not at all.

    Raises:
        UserError: A value can't be used.
    """

    extra_body: Mapping[str, object] = field(default_factory=dict)
    max_tokens_field: str = LIMITS[0]
    drop: Sequence[str] = ()
    system: str | None = None
    reasoning_effort: str | None = None
    choices: str | None = None

    def __post_init__(self) -> None:
        for name in self.extra_body:
            if name in _RESERVED:
                raise UserError(f"extra_body may not hold {name!r}: {_other_way(name)}.")
        try:
            json.dumps(self.extra_body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"extra_body must be JSON, but: {error}; put dates in quotes.") from None
        for name, value, known in (
            ("max_tokens_field", self.max_tokens_field, LIMITS),
            ("choices", self.choices, (None, *CHOICES)),
            *(("drop", value, _OPTIONAL) for value in self.drop),
        ):
            if value not in known:
                there = ", ".join(filter(None, known))
                raise UserError(f"{name} may be {there}, not {value!r}{did_you_mean(value, known)}")

    def body(self, request: Request, model: str, refused: Collection[str] = ()) -> dict[str, object]:
        """The body of a request, without the parameters that the endpoint has `refused`."""
        # Always with a limit on tokens: servers' own defaults differ, and some cut answers after a few words.
        sampling, limit = request.sampling, self.limit(refused)
        body: dict[str, object] = {
            "model": model,
            "messages": self._messages(request),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            limit: sampling.max_tokens,
        }
        if (seed := request_seed(request)) is not None:
            body["seed"] = seed
        if self.reasoning_effort is not None:
            body["reasoning_effort"] = self.reasoning_effort
        if self.choices is not None and request.choices:
            choices = list(request.choices)
            body[self.choices] = {"choice": choices} if self.choices == CHOICES[0] else choices
        body |= self.extra_body
        dropped = {*self.drop, *refused} - {limit if set(self.drop).isdisjoint(LIMITS) else ""}
        return {name: value for name, value in body.items() if name not in dropped} if dropped else body

    def limit(self, refused: Collection[str] = ()) -> str:
        """Name of the limit on tokens: the one given, or the other where the endpoint has refused it."""
        other = LIMITS[self.max_tokens_field == LIMITS[0]]
        return other if self.max_tokens_field in refused else self.max_tokens_field

    def answer_options(self, request: Request) -> dict[str, object]:
        """What of this changes the answer to `request`; empty where nothing does. It is part of the ledger's key."""
        seeded = request.sampling.seed is not None
        drop = sorted({name for name in self.drop if name != "seed" or seeded})
        found = {"extra_body": self.extra_body, "drop": drop, "system": self.system}
        found |= {"reasoning_effort": self.reasoning_effort, "choices": self.choices if request.choices else None}
        return {name: value for name, value in found.items() if value}

    def _messages(self, request: Request) -> list[Mapping[str, str]]:
        messages: list[Mapping[str, str]] = list(request.messages)
        if not self.system:
            return messages
        text = self.system
        if messages and messages[0]["role"] == "system":  # Many chat templates take only one.
            text = f"{text}\n\n{messages.pop(0)['content']}"
        return [{"role": "system", "content": text}, *messages]


def _other_way(name: str) -> str:
    if name in LIMITS:
        return "it is the sampling parameter max_tokens; max_tokens_field names it for the endpoint"
    return "a request asks one model for one whole answer"


def refused_parameter(status: int, body: str, sent: Mapping[str, object]) -> str | None:
    """The parameter of a request that the endpoint refuses by name, if it may be left out.

    Args:
        status: Status of the answer; only 400 and 422 refuse parameters.
        body: Text of the answer.
        sent: Body of the request.

    >>> refused_parameter(400, '{"error": {"message": "Unsupported parameter: \\'top_p\\'."}}', {"top_p": 0.9})
    'top_p'
    >>> refused_parameter(400, '{"error": {"message": "top_p must be above 0"}}', {"top_p": 0.0}) is None
    True
    """
    if status not in (400, 422):
        return None
    texts, places = _said(body)
    message = " ".join(texts)
    if not _UNSUPPORTED.search(message):
        return None
    named = [name for place in places for name in sent if name in place]
    if not places:
        named = sorted((name for name in sent if _position(name, message) >= 0), key=lambda n: _position(n, message))
    if _EITHER.search(message):
        named.reverse()
    found = next(iter(named), None)
    # A value that the user wrote and the model lacks is for the user to correct.
    keeps = found in ("model", "messages") or (found not in _OPTIONAL and _OF_VALUE.search(message))
    return None if keeps else found


def _position(name: str, message: str) -> int:
    """Where a message names a parameter, -1 if nowhere. A plain word has to be marked as a name."""
    name = re.escape(name)
    marked = rf"[\"'`]{name}[\"'`]|(?:\A|[\s.]){name}:|(?:parameter|argument|field|input)s? {name}\b|: {name}(?![\w.])"
    found = re.search(marked, message, re.I) or ("_" in name and re.search(rf"\b{name}\b", message))
    return found.start() if found else -1


def _said(body: str) -> tuple[list[str], list[list[str]]]:
    """All texts of an error, and the places that it names in fields for that, as lists of names."""
    try:
        leaves = list(_leaves(json.loads(body)))
    except (ValueError, RecursionError):
        return [body], []
    texts, places = list[str](), list[list[str]]()
    for key, value in leaves:
        if key == "param" and isinstance(value, str) and value:
            places.append([re.split(r"[.\[]", value)[0]])
        elif key == "loc" and isinstance(value, list):
            places.append([str(part) for part in value])
        elif isinstance(value, str):
            texts.append(value)
    return texts, places


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Keys and values of nested JSON, `loc` as a whole."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, name)
    elif isinstance(value, list) and key != "loc":
        for part in value:
            yield from _leaves(part, key)
    else:
        yield key, value
