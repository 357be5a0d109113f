"""A kind of constraint: its check, its wordings, its sampler, and what of an answer it settles, in one place."""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from .reading import joined
from .samplers import Sampler


class Aspect(StrEnum):
    """A part of an answer that a constraint settles. Two constraints that settle the same part never go together."""

    LENGTH = "length"
    LAYOUT = "layout"
    START = "start"
    END = "end"
    CASE = "case"
    MARKS = "marks"
    DIGITS = "digits"
    WORDS = "words"
    LETTERS = "letters"
    LANGUAGE = "language"
    TITLE = "title"
    CODE = "code"
    EMPHASIS = "emphasis"
    RESULT = "result"


EVERYTHING = frozenset(Aspect)
RELATION = "relation"  # How the name of an argument ends that is one of `reading.RELATIONS`.

_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_ORDINALS = ("zeroth", "first", "second", "third", "fourth", "fifth")
# What says a relation, around a number and up to two words behind it.
_SAID_RELATIONS = {
    "at least": r"(?:(?:at least|no fewer than|no less than|a minimum of) {n}\b|\b{n} (?:\w+ ){{0,2}}or more)",
    "less than": r"(?:less than|fewer than|under|below) {n}\b",
}


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of constraint that code can check.

    Attributes:
        id: IFEval's or IFBench's where they have the kind, else ours in the same form.
        check: Function of an answer and arguments by name; whether the answer keeps the constraint.
        sampler: Function of a random generator and an instruction; arguments that fit it, or None.
        settles: The parts of an answer that the constraint decides.
        named: Regular expression for what any wording must say besides the arguments, in any case.
        wordings: Sentences with the arguments in braces, one a line.
        held_out: Never used in evolving, so that a model can be tested on it.
    """

    id: str
    check: Callable[..., bool]
    sampler: Sampler
    settles: Set[Aspect]
    named: str
    wordings: str
    held_out: bool = False

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of the check's arguments besides the answer."""
        return tuple(inspect.signature(self.check).parameters)[1:]

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The wordings, one by one."""
        return tuple(line.strip() for line in self.wordings.strip().splitlines())


def describe(kind: Kind, arguments: Mapping[str, Any], wording: int = 0) -> str:
    """The constraint as a sentence, in one of its wordings (any number will do)."""
    values = {name: shown(value) for name, value in arguments.items()}
    return kind.sentences[wording % len(kind.sentences)].format(**values)


def shown(value: Any) -> str:
    """An argument as a sentence shows it: several words in quotation marks, the codes of languages as their names."""
    if isinstance(value, str):
        return _LANGUAGE_NAMES.get(value, value)
    return joined(value) if isinstance(value, Sequence) else str(value)


_LANGUAGE_NAMES = {
    **{"de": "German", "en": "English", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese"},
    **{"nl": "Dutch", "ru": "Russian", "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ar": "Arabic"},
    **{"hi": "Hindi", "el": "Greek", "he": "Hebrew", "th": "Thai"},
}


def names(kind: Kind, arguments: Mapping[str, Any], text: str) -> bool:
    """Whether a text says the constraint: its subject, each argument, and each number with its relation.

    A text that names another bound ("at most 50" for "less than 50") does not say it.
    """
    relations = [value for name, value in arguments.items() if name.endswith(RELATION)]
    said = re.search(kind.named, text, re.I) is not None
    for name, value in arguments.items():
        if isinstance(value, int):
            said &= _says_number(value, relations, text)
        elif not name.endswith(RELATION):
            values = [value] if isinstance(value, str) else value
            said &= all(_says_text(shown(one), text) for one in values)
    return said


def _says_number(value: int, relations: Sequence[str], text: str) -> bool:
    spellings = [str(value), f"{value:,}", *_NUMBER_WORDS[value : value + 1]]
    number = "(?:" + "|".join(map(re.escape, spellings)) + ")"
    if relations:
        return all(re.search(_SAID_RELATIONS[one].format(n=number), text, re.I) for one in relations)
    ordinals = [rf"{value}(?:st|nd|rd|th)", *_ORDINALS[value : value + 1]]
    return re.search(rf"(?<![\w.,])(?:{number}|{'|'.join(ordinals)})(?!\w|[.,]\d)", text, re.I) is not None


def _says_text(value: str, text: str) -> bool:
    return " ".join(value.lower().split()) in " ".join(text.lower().split())


def packed(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON, the same for the same arguments."""
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
