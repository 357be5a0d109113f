"""Material: in goes an instruction with the lists or tables it works on, out comes the material as JSON."""

import json
import re
from collections.abc import Sequence
from typing import Any

BLANK = "\n\n"  # Between an instruction and its material.

# Where the instruction speaks of the format, or the material is code or data already, another format changes the task.
_FORMAT = re.compile(
    r"\b(?:csv|columns?|convert|formats?|json|lists?|lines?|markdown|rows?|tables?|text|yaml)\b", re.I
)
_CODE = re.compile(r"[{}=<>`]|\bdef\b|\bselect\b", re.I)
_RULE = re.compile(r"[|:\- ]+\Z")


def as_json(text: str, key: str) -> str | None:
    """The material of an instruction as JSON under `key`; None if there is none, or it has a format that may matter.

    >>> print(as_json("Add them up.\\n\\n- rent: 400\\n- food: 210", "costs"))
    {"costs": ["rent: 400", "food: 210"]}
    >>> as_json("Turn the list into a table.\\n\\n- rent: 400\\n- food: 210", "costs") is None
    True
    """
    head, _, material = text.partition(BLANK)
    lines = [line.strip() for line in material.splitlines() if line.strip()]
    if not lines or BLANK in material.strip() or _FORMAT.search(head) or _CODE.search(material):
        return None
    values: list[Any] = _records(lines) or [line.removeprefix("- ").removeprefix("* ") for line in lines]
    if len(lines) == 1:
        items = [item.strip(" .") for item in material.split(",")]
        if len(items) < 3 or any(len(item.split()) > 4 for item in items):
            return None
        values = items
    return json.dumps({key: values}, ensure_ascii=False)


def _records(lines: Sequence[str]) -> list[dict[str, str]] | None:
    """The rows of a Markdown or CSV table, by the names of its columns."""
    if all(line.startswith("|") for line in lines) and len(lines) > 2:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not _RULE.match(line)]
    else:
        mark = max(";,", key=lines[0].count)
        rows = [[cell.strip() for cell in line.split(mark)] for line in lines]
        if re.search(r"\d", lines[0]):
            return None  # A first row with numbers names no columns.
    width = len(rows[0])
    if width < 2 or len(rows) < 3 or any(len(row) != width for row in rows) or len(set(rows[0])) < width:
        return None
    return [dict(zip(rows[0], row)) for row in rows[1:]]
