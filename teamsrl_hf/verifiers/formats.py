"""Checks of an answer's layout: in go an answer and arguments, out comes whether it has the list or table wanted.

See `checks` for how strict they are. Markdown inside blocks of code is code, not layout.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from .reading import (
    Count,
    bullets,
    code_blocks,
    count_bullets,
    is_all_prose,
    lines,
    numbered,
    relation_holds,
    without_code,
    words,
)

_JSON_FENCE = re.compile(r"\A```(?:json|JSON|Json)?[ \t]*\n(.*)\n[ \t]*```\Z", re.S)
_HIGHLIGHT = re.compile(r"(?<![\w*])(\*{1,2})(?![\s*])([^*\n]+)(?<!\s)\1(?![\w*])")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S.*$", re.M)
_TITLE = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+)?<<([^<>\n]+)>>[ \t]*$", re.M)
_RULE = re.compile(r":?-+:?\Z")
_DIVIDER = re.compile(r"^[ \t]*\*{6}[ \t]*$", re.M)
# Names that people give one language.
_ALIASES = {"py": "python", "python3": "python", "js": "javascript", "sh": "bash", "shell": "bash", "c++": "cpp"}


def number_of_bullets(answer: str, *, num_bullets: int) -> bool:
    """Markdown bullets; a rule of hyphens, or a hyphen in code, makes the number doubtful, and the answer fails."""
    return count_bullets(answer).is_exactly(num_bullets)


def numbered_list(answer: str, *, num_items: int) -> bool:
    """One list whose items are numbered 1, 2, 3, …"""
    return [number for number, _ in numbered(answer)] == list(range(1, num_items + 1))


def number_of_items(answer: str, *, num_items: int, relation: str) -> bool:
    """Items of bullet and numbered lists together."""
    count = len(bullets(answer)) + len(numbered(answer))
    return count > 0 and relation_holds(Count(count, count), relation, num_items)


def alphabetical_items(answer: str, *, num_items: int) -> bool:
    """Exactly so many items of a bullet or numbered list, in alphabetical order."""
    items = bullets(answer) or [item for _, item in numbered(answer)]
    keys = [" ".join(words(item)).casefold() for item in items]
    return len(items) == num_items and keys == sorted(keys) and count_bullets(answer).most in (0, num_items)


def highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """Passages between asterisks, `*so*` or `**so**`."""
    found = _HIGHLIGHT.findall(without_code(answer))
    return sum(bool(words(inner)) for _, inner in found) >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """Lines that begin with the word and its number, from 1, in order, and text under each."""
    parts = re.split(rf"^[ \t#*_]*{re.escape(section_spliter)} ?(\d+)\b", without_code(answer), flags=re.M)
    numbers = [int(number) for number in parts[1::2]]
    return numbers == list(range(1, num_sections + 1)) and all(words(part) for part in parts[2::2])


def headings(answer: str, *, num_headings: int) -> bool:
    """Markdown headings of any level."""
    return len(_HEADING.findall(without_code(answer))) == num_headings


def title(answer: str) -> bool:
    """A line of its own in double angle brackets, and more than that line."""
    titles = _TITLE.findall(without_code(answer))
    return any(map(words, titles)) and bool(words(_TITLE.sub("", answer)))


def markdown_table(answer: str, *, num_columns: int) -> bool:
    """One table or more, each of exactly so many columns, with a head, a rule and at least one row."""
    tables = _tables(without_code(answer))
    return bool(tables) and all(
        len(table) >= 3 and all(len(row) == num_columns for row in table) and any(map(words, table[2]))
        for table in tables
    )


def _tables(text: str) -> list[list[list[str]]]:
    """The cells of each table of a text: runs of lines with bars whose second line is a rule."""
    runs: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        inner = line.strip().removeprefix("|")
        inner = inner[:-1] if inner.endswith("|") and not inner.endswith(r"\|") else inner
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", inner)]
        if "|" not in line:
            runs.append([])
        else:
            runs[-1].append(cells)
    return [run for run in runs if len(run) > 1 and all(map(_RULE.match, run[1]))]


def read_json(answer: str) -> Any:
    """The value of an answer that is JSON and nothing else, with or without a code fence; None where it is not."""
    text = answer.strip()
    fenced = _JSON_FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def json_format(answer: str) -> bool:
    """The whole answer is a JSON object or array that holds something."""
    value = read_json(answer)
    return isinstance(value, dict | list) and bool(value)


def json_keys(answer: str, *, keys: Sequence[str]) -> bool:
    """The whole answer is a JSON object with exactly these keys, none of which is empty."""
    value = read_json(answer)
    return isinstance(value, dict) and set(value) == set(keys) and all(_said(part) for part in value.values())


def _said(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def code_fence(answer: str, *, language: str) -> bool:
    """A block of code that names the language; no block names another."""
    named = {_ALIASES.get(name, name) for name, _ in code_blocks(answer)}
    return named == {_ALIASES.get(language.lower(), language.lower())}


def two_responses(answer: str) -> bool:
    """Two different texts with a line of six asterisks between them."""
    parts = [part.strip() for part in _DIVIDER.split(answer)]
    if len(parts) != 2 or "******" in "".join(parts):
        return False
    first, second = (" ".join(words(part)).casefold() for part in parts)
    return bool(first and second) and first != second


def labelled_lines(answer: str, *, labels: Sequence[str]) -> bool:
    """Lines that begin with each label and a colon, in this order, with a text behind it."""
    found = [line.strip("*_ ").partition(":") for line in lines(answer)]
    heads = [head.strip("*_ ") for head, colon, rest in found if colon and words(rest)]
    return [head for head in heads if head in labels] == list(labels)


def tagged(answer: str, *, tag: str) -> bool:
    """The whole answer stands between <tag> and </tag>, which occur once."""
    text = answer.strip()
    opened, closed = f"<{tag}>", f"</{tag}>"
    whole = text.startswith(opened) and text.endswith(closed)
    return whole and text.count(opened) == text.count(closed) == 1 and bool(words(text[len(opened) : -len(closed)]))


def one_line(answer: str) -> bool:
    return len(answer.strip().splitlines()) == 1


def no_lists(answer: str) -> bool:
    """Prose without bullets, numbered items, tables, blocks of code or headings, those in bold type included."""
    return not code_blocks(answer) and is_all_prose(without_code(answer))
