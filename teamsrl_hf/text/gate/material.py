"""What an instruction works on: in go a text and its rewrite, out comes whether input and numbers were kept."""

import re

from ..words import normalise, words
from .english import STOP_WORDS

_NUMBER = re.compile(r"\d(?:\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d*(?:\.\d+)?)")
_SPELLED = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        map(str, range(13)),
    )
)
_ROW = re.compile(r"^\s*\|.*\|\s*$|^[^\n]*(?:[;\t][^\n;\t]*){2,}$", re.M)
# "This code", "the following e-mail": the text speaks of something that it must hold.
_POINTS_AT = re.compile(
    r"\b(?:this|these|(?:the )?(?:following|given|provided|above|attached)|(?:the )?(?=\w+(?: \w+)? below\b))"
    r"\s+(?:\w+ ){0,2}?"
    r"(?:code|function|program|snippet|script|query|log|table|data|dataset|set|list|form|e-?mail|message|letter|note|text"
    r"|paragraph|passage|sentence|statement|excerpt|article|story|poem|dialog(?:ue)?|conversation|review|recipe|abstract"
    r"|tweet|post|ticket|error|equation|expression|numbers?|words?|facts?|ingredients|cit(?:y|ies)|countr(?:y|ies)"
    r"|purposes?|religions?|profession|names?|items?|lines?|rows?|columns?|document|report|schedule|itinerary|menu|invoice"
    r"|json|csv|xml|html|input|questions?|options?|events?)\b",
)
_POINTERS = ("this", "these", "following", "given", "provided", "above", "attached", "below")
_DATA = re.compile(r"\n|```|:\s*\S|[{\[|<]|[\"“«「].+[\"”»」]")
_HOLDS = re.compile(r"\n|```|[:]\s+\S|[\"“«'‘`{\[].*[\"”»'’`}\]]|\d", re.S)


def material(instruction: str) -> str:
    """The input of an instruction: what follows its first paragraph or line; empty where it is one paragraph.

    >>> material("Sort these.\\n\\n3, 1, 2"), material("Name a bird.")
    ('3, 1, 2', '')
    """
    text = instruction.strip()
    return text.partition("\n\n" if "\n\n" in text else "\n")[2].strip()


def task_of(instruction: str) -> str:
    """The first paragraph or line of an instruction, without its input."""
    text = instruction.strip()
    return text.partition("\n\n" if "\n\n" in text else "\n")[0]


def loses_input(instruction: str, rewrite: str) -> bool:
    """Whether most of an instruction's input is gone from its rewrite."""
    held = _subject(material(instruction))
    if not held:
        return False
    kept = len(held & set(words(rewrite))) / len(held)
    return kept < (0.6 if len(held) > 3 else 1.0)


def loses_numbers(instruction: str, rewrite: str) -> bool:
    """Whether a number in digits of an instruction of one paragraph, or a third of them in an input, is gone."""
    numbers = _numbers(instruction)
    if not numbers:
        return False
    lost = numbers - _numbers(rewrite) - {_SPELLED.get(word, "") for word in normalise(rewrite).split()}
    return len(lost) > (len(numbers) / 3 if material(instruction) else 0)


def holds_data(text: str) -> bool:
    """Whether a text holds lines, a quotation, brackets, or something behind a colon: what can be worked on."""
    return bool(_DATA.search(text))


def points_at_nothing(rewrite: str, instruction: str) -> bool:
    """Whether a text speaks of a table, code or passage, "this" or "the following" one, that it does not hold.

    >>> points_at_nothing("What does this code print?", ""), points_at_nothing("Run this code: x = 1", "")
    (True, False)
    """
    lower = rewrite.lower()
    found = _POINTS_AT.search(lower) if any(word in lower for word in _POINTERS) else None
    if not found or _HOLDS.search(rewrite, found.start()):
        return False
    # A text of one paragraph may have pointed at something all along: then nothing was lost.
    return bool(material(instruction)) or not _POINTS_AT.search(instruction.lower())


def _subject(text: str) -> set[str]:
    return {word for word in words(text) if word not in STOP_WORDS and word[0].isalnum()}


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in _NUMBER.findall(text)}
