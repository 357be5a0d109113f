"""Exceptions that are not bugs, and the exit statuses of commands.

0    done: the command wrote its rows, model or report
1    a bug, in this package or a library, with its traceback
2    an input can't be used (`UserError`)
3    the run finished without a single row (`NothingMade`)
4    stopped early (`Stopped`): a budget is spent, or a model refuses every call; the same command resumes the run
129  stopped by SIGHUP (the terminal was closed), 130 by SIGINT (Ctrl-C), 143 by SIGTERM; the same command resumes
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class UserError(ValueError):
    """An input can't be used; the message says what was given, what was expected and how to correct it.

    Commands print it as one line. Any other exception is a bug, in this package or a library, and keeps its traceback.

    >>> print(UserError("a\\x1b[2Jb.jsonl:\\n  broken"))
    a\\x1b[2Jb.jsonl: broken
    """

    def __init__(self, message: str):
        super().__init__(one_line(message))


class NothingMade(Exception):
    """A run finished without a single row.

    Attributes:
        summary: The summary that the run would have returned.
    """

    status = 3

    def __init__(self, message: str, summary: dict[str, Any]):
        super().__init__(message)
        self.summary = summary


class Stopped(Exception):
    """A run had to stop. Every paid call is recorded, and the same command resumes where it stopped."""

    status = 4


class CallsRefused(Stopped):
    """Calls to a model kept failing and none succeeded, so the cause concerns all of them."""


def most_failed(who: str, errors: Sequence[str], answered: int) -> CallsRefused:
    """The exception to raise when most calls to `who` failed: the few answers are then not representative.

    >>> print(most_failed("the judge", ["HTTP 500", "HTTP 500", "timeout"], 1))
    3 of 4 calls to the judge failed, 2 of them with: HTTP 500. Correct this and run the same command again.
    """
    reason, times = Counter(errors).most_common(1)[0]
    failed = f"{len(errors)} of {len(errors) + answered} calls to {who} failed, {times} of them with: {reason}"
    return CallsRefused(f"{failed}. Correct this and run the same command again.")


def one_line(text: str) -> str:
    """The text on one printable line, whatever file names, columns or library messages it contains."""
    characters = " ".join(text.split())
    if characters.isprintable():
        return characters
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in characters)


def did_you_mean(given: object, known: Iterable[object]) -> str:
    """The end of a sentence: the most similar of the `known` names, or a full stop if none is similar.

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
    """UserError unless `value` is finite, in [`least`, `most`] and (`above`, `below`), and whole if `whole` is set."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    fits = math.isfinite(number) and least <= number <= most and above < number < below
    if not fits or (whole and number != int(number)):
        bounds = [f"of at least {least:g}"] if least > -math.inf else []
        bounds += [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at most {most:.10g}"] if most < math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{name} must be {kind} {' and '.join(bounds)}".rstrip() + f", not {value!r}.")
