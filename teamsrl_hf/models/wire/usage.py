"""What an answer was charged: in goes the `usage` that a server reports, out come tokens, or None."""

from dataclasses import dataclass

# Names of one count, by OpenAI, Anthropic, DeepSeek and Moonshot; the first that is told counts.
_PROMPT = ("prompt_tokens",)
_ANSWER = ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
# Anthropic's prompt is the sum of these; everybody else's includes what was cached.
_PARTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_THOUGHTS = ("reasoning_tokens",)
_DETAILS = ("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details")


@dataclass(frozen=True)
class Usage:
    """Tokens of a prompt, of its answer with all thoughts, and those of the prompt that came from a cache."""

    prompt: int
    completion: int
    cached: int = 0


def read_usage(usage: object) -> Usage | None:
    """The tokens that `usage` tells, None where it tells none that may be.

    Thoughts that a server counts in the total alone, or beside the answer, are part of the answer.

    >>> read_usage({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 518})
    Usage(prompt=11, completion=507, cached=0)
    >>> read_usage({"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 5})
    Usage(prompt=100, completion=5, cached=90)
    >>> read_usage({"prompt_tokens": -1, "completion_tokens": "many"}) is None
    True
    """
    if not isinstance(usage, dict):
        return None
    details = [usage[name] for name in _DETAILS if isinstance(usage.get(name), dict)]
    found = [_first(names, usage) for names in (_PROMPT, _ANSWER, ("total_tokens",))]
    parts = [_first((name,), usage) for name in _PARTS]
    if all(count is None for count in (*found, *parts)):
        return None
    prompt, answer, total = found
    prompt = sum(part or 0 for part in parts) if prompt is None else prompt
    answer, thoughts = answer or 0, thoughts_of(usage)
    answer = max(answer + thoughts * (thoughts > answer), (total or 0) - prompt)
    cached = _first(_CACHED, *details, usage) or 0
    return Usage(prompt, answer, min(cached, prompt))


def thoughts_of(usage: object) -> int:
    """Tokens of thoughts, 0 where `usage` tells of none."""
    if not isinstance(usage, dict):
        return 0
    details = [usage[name] for name in _DETAILS if isinstance(usage.get(name), dict)]
    return _first(_THOUGHTS, *details, usage) or 0


def _first(names: tuple[str, ...], *places: dict) -> int | None:
    for place in places:
        for name in names:
            if name in place and (count := _number(place[name])) is not None:
                return count
    return None


def _number(value: object) -> int | None:
    """A count, which some servers write as a text or with a point. No answer has a billion; a database takes none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        return None
    return int(value)
