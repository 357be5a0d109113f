"""What a command ends with: in goes nothing, out come the exceptions that are no bugs, and the exit status of each.

0    done: there are rows, or a model, or whatever the command makes
1    a bug, of ours or of a library, with its traceback
2    something given can't be used (`UserError`)
3    the run is over and made not a single row (`NothingMade`)
4    stopped before its end, nothing is lost, the same command goes on (`Stopped`): a budget is spent, or a model
     refuses every call
129  stopped by SIGHUP (the terminal was closed), 130 by SIGINT (Ctrl-C), 143 by SIGTERM; the same command goes on
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """Something the user gave can't be used; the message says what it was, what is wanted and the way out.

    The commands show it as one line. Every other exception is a bug, of ours or of a library, and keeps its traceback.

    >>> print(UserError("a\\x1b[2Jb.jsonl:\\n  broken"))
    a\\x1b[2Jb.jsonl: broken
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class NothingMade(Exception):
    """A run came to its end without a single row.

    Attributes:
        summary: What the run would have returned.
    """

    status = 3

    def __init__(self, message: str, summary: dict[str, Any]):
        super().__init__(message)
        self.summary = summary


class Stopped(Exception):
    """A run can't go on for now. What was bought is recorded, and the same command goes on where it stopped."""

    status = 4


class CallsRefused(Stopped):
    """Call after call to a model failed for good and none was answered: whatever is wrong concerns them all."""


def most_failed(who: str, errors: Sequence[str], answered: int) -> CallsRefused:
    """What to raise where most calls to somebody failed: the few answers are then no picture of the whole.

    >>> print(most_failed("the judge", ["HTTP 500", "HTTP 500", "timeout"], 1))
    3 of 4 calls to the judge failed, 2 of them with: HTTP 500. Correct this and run the same command again.
    """
    reason, times = Counter(errors).most_common(1)[0]
    failed = f"{len(errors)} of {len(errors) + answered} calls to {who} failed, {times} of them with: {reason}"
    return CallsRefused(f"{failed}. Correct this and run the same command again.")


def one_line(text: str) -> str:
    """Text on one printable line, whatever file names, columns or library messages stand in it."""
    characters = " ".join(text.split())
    if characters.isprintable():
        return characters
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in characters)


def did_you_mean(given: object, known: Iterable[object]) -> str:
    """The end of a sentence: the likeliest of the `known` names, or a full stop where none is like the given one.

    >>> did_you_mean("--max_word", ["--max_words", "--min_words"]), did_you_mean("zebra", ["plan", "packed"])
    ("; did you mean '--max_words'?", '.')
    """
    names = {str(name).lower(): str(name) for name in known}
    found = get_close_matches(str(given)[:80].lower(), names, n=1)
    return f"; did you mean {names[found[0]]!r}?" if found else "."


def check_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    whole: bool = False,
) -> None:
    """UserError unless `value` is finite, in [`least`, `most`] and (`above`, `below`), and whole if that is asked."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (whole and value != int(value)) or not (least <= value <= most and above < value < below):
        bounds = [f"of at least {least:g}"] if least > -math.inf else []
        bounds += [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at most {most:.10g}"] if most < math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{name} must be {kind} {' and '.join(bounds)}".rstrip() + f", not {value!r}.")
