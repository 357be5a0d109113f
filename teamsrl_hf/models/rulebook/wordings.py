"""Wordings of what the operations add to an instruction, and how a text shows that it has one of them already."""

import re
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from .sentences import SENTENCE_END
from .words import Choose, load

_SLOT = re.compile(r"\{(\w+)\}")
SLOTS: dict[str, list[str]] = load("additions")["slots"]


def fill(template: str, choose: Choose) -> str:
    """The template with every slot filled."""
    return _SLOT.sub(lambda slot: choose(SLOTS[slot[1]]), template)


class Wordings(NamedTuple):
    """Wordings of one kind of addition, and what shows that a text has it: a pattern, or a fixed part of a wording."""

    shown: re.Pattern
    templates: tuple[str, ...]
    fixed: tuple[str, ...]

    def carried_by(self, text: str) -> bool:
        return bool(self.shown.search(text)) or any(part in text for part in self.fixed)


def _wordings(shown: str, templates: Sequence[str]) -> Wordings:
    return Wordings(re.compile(shown, re.I | re.S), tuple(templates), tuple(map(_fixed_part, templates)))


def _fixed_part(template: str) -> str:
    """The longest part of a template between its slots."""
    return max(_SLOT.split(template)[::2], key=len).strip()


_FOLLOWING = load("additions")["follow_ups"]
CONSTRAINT_KINDS: dict[str, list[str]] = load("additions")["constraint_kinds"]
CONSTRAINTS = {
    name: _wordings(entry["shown"], entry["wordings"]) for name, entry in load("additions")["constraints"].items()
}
FOLLOW_UPS = {name: _wordings(entry["shown"], entry["sentences"]) for name, entry in _FOLLOWING.items()}
FOLLOW_TAILS = {name: _wordings(entry["shown"], entry["tails"]) for name, entry in _FOLLOWING.items()}
_STEPWISE = (
    r"\bstep[- ]by[- ]step\b|\bsteps?\b|\bfirst\b.*\bthen\b|\bintermediate\b|\breasoning\b"
    r"|\bcalculations?\b|\bone by one\b|\bin turn\b"
    r"|\bshow (?:your|the|all) (?:work|working)|\bbefore (?:deciding|you)\b|\bone after another\b"
    r"|\bonly then\b|\breason from\b"
)
REASONING = {kind: _wordings(_STEPWISE, templates) for kind, templates in load("additions")["reasoning"].items()}
INPUT_NOTES: dict[str, list[str]] = load("additions")["input_notes"]


def _own_openings() -> dict[str, list[str]]:
    """Fixed parts of all added sentences, by the first word of the sentence; short ones could be anybody's."""
    banks = [bank.templates for bank in (*CONSTRAINTS.values(), *FOLLOW_UPS.values(), *REASONING.values())]
    openings: dict[str, list[str]] = {}
    for template in chain(*banks, *INPUT_NOTES.values()):
        if len(_fixed_part(template)) > 11:
            openings.setdefault(template.split()[0], []).append(_fixed_part(template))
    return openings


_OWN_OPENINGS = _own_openings()


def own_spans(head: str) -> list[tuple[int, int]]:
    """Start and end of every sentence that the rulebook added: these say nothing about the subject."""
    starts = [0, *(found.end() for found in SENTENCE_END.finditer(head)), len(head)]
    return [
        (start, end)
        for start, end in pairwise(starts)
        if any(part in head[start:end] for part in _OWN_OPENINGS.get(head[start:end].split(" ", 1)[0], ()))
    ]
