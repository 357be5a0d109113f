"""Edits: in goes an instruction, out come the small thing to ask a model for and the rewrite that code composes of it.

A model that writes a whole instruction anew loses parts of it. Here it writes one line, such as a reader or a
question; the instruction and its material are kept by construction, and the answer takes a quarter of the tokens.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from ..types import Reason
from .material import BLANK, as_json
from .words import SHORT_WIDTH, count_words, width
from .words import words as words_of

Messages = tuple[dict[str, str], ...]

TURN_FRAME = "Task: {text}\n\n{ask}"
MAX_WORDS = 24  # Content words of an edit: longer ones ramble.
MAX_TOKENS = 64
TRIES = 2  # Edits asked for before a step is given up.

_WORD = re.compile(r"[^\W\d_]+|\d+")
_FUNCTION = """
a about all an and any are as at be been but by can could did do does for from had has have he her his how i if in into
is it its me more most my no not of on one or our out so some than that the their them then there these they this those
to two us was we were what when where which who whom whose why will with would you your"""
_FUNCTION_WORDS = frozenset(_FUNCTION.split())
_LABEL = re.compile(r"\A(?:[-*•>]\s+|\d+[.)]\s+|(?:answer|edit|output|question|requirement|task)\s*:\s*)+", re.I)
_STOPS = {":": ".", "：": "。"}
_END = re.compile(r"[.!?…:;,。！？：；，、।؟۔][\"'”’»」』）)\]*_`]*\Z")
_QUOTES = ('""', "''", "“”", "``", "**", "__")


class EditForm(StrEnum):
    """How an answer is read.

    A phrase or sentence, three or four items of a list, a JSON object of texts, or the name of the material.
    """

    TEXT = "text"
    ITEMS = "items"
    RECORD = "record"
    MATERIAL = "material"


@dataclass(frozen=True)
class Edit:
    """One small thing to ask a model for, and how code makes a rewrite of the answer.

    Attributes:
        name: What it is about, such as "reader".
        ask: The question, shown below the instruction.
        frame: The text that the rewrite gains, with `{edit}` in the place of the answer, `{table}` for a table of its
            items, or `{key}` for the key under which the material follows as JSON.
        examples: Pairs of an instruction and an answer, shown as earlier turns of the chat.
        form: How the answer is read, see `EditForm`.
        pattern: Regular expression that the start of the answer must match.
        whole: The frame with the answer is the rewrite; otherwise it follows the instruction, before its material.
        fresh: The answer must hold a content word that the instruction lacks.
        responses: For each of the examples, a response to its instruction and what it gains by the answer, shown where
            a response is asked for in the same request; an empty pair where there is none.
        min_logprob: Mean log-probability of the answer's tokens, in nats, below which the model is too unsure of it;
            where a model does not say it, as endpoints, any answer will do. None: nobody asks.
    """

    name: str
    ask: str
    frame: str = "{edit}"
    examples: tuple[tuple[str, str], ...] = ()
    form: EditForm = EditForm.TEXT
    pattern: str = ""
    whole: bool = False
    fresh: bool = True
    responses: tuple[tuple[str, str], ...] = ()
    min_logprob: float | None = None


def edit_messages(edit: Edit, text: str) -> Messages:
    """Chat messages that ask for `edit`: two turns for each worked example, then the instruction without material."""
    turns: list[dict[str, str]] = []
    for instruction, answer in edit.examples:
        turns += [
            {"role": "user", "content": TURN_FRAME.format(text=instruction, ask=edit.ask)},
            {"role": "assistant", "content": answer},
        ]
    shown = text if edit.form == EditForm.MATERIAL else text.partition(BLANK)[0]
    return (*turns, {"role": "user", "content": TURN_FRAME.format(text=shown, ask=edit.ask)})


def in_turn(edits: Sequence[Edit], text: str, sample_index: int = 0) -> tuple[Edit, ...]:
    """The edits to ask for, in order, as many as `tries`. The text alone decides, so that each is used about as often.

    Where code can give the material as JSON, an edit of it comes first; elsewhere there is none.

    >>> edits = Edit("a", "?"), Edit("b", "?"), Edit("c", "?")
    >>> [edit.name for edit in in_turn(edits, "Why is the sky blue?")]
    ['a', 'b']
    >>> [edit.name for edit in in_turn(edits, "Why is the sky blue?", sample_index=1)]
    ['b', 'c']
    """
    usual = [edit for edit in edits if edit.form != EditForm.MATERIAL]
    special = [edit for edit in edits if edit.form == EditForm.MATERIAL and as_json(text, "lines")]
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    first = (int.from_bytes(digest, "big") + sample_index) % max(1, len(usual))
    ordered = [*usual[first:], *usual[:first]]
    return tuple(([*ordered, *special] if sample_index else [*special, *ordered])[: tries(edits)])


def tries(edits: Sequence[Edit]) -> int:
    """Most edits asked for before a step is given up: all where a model may be unsure of them, which is often so."""
    return TRIES if all(edit.min_logprob is None for edit in edits) else len(edits)


def tidy(said: str) -> str:
    """The first line that says something, without a list marker, a label or quotation marks around it.

    >>> tidy("Sure, here it is:\\n\\n1. **Which tools are needed?**\\nI hope this helps.")
    'Which tools are needed?'
    """
    lines = [line.strip() for line in said.splitlines() if line.strip(" `\t")]
    if not lines:
        return ""
    line = lines[1] if lines[0].endswith((":", "：")) and len(lines) > 1 else lines[0]
    line = _LABEL.sub("", line).strip()
    for quotes in (*_QUOTES, *_QUOTES):  # Twice: bold is two marks at either end.
        inner = line[1:-1]
        if len(line) > 2 and line[0] + line[-1] == quotes and quotes[0] not in inner.strip(quotes[0]):
            line = inner.strip()
    return line


def compose(edit: Edit, text: str, answer: str) -> str:
    """The rewrite that `answer` makes of `text`. What is added stands before the material, as an instruction does.

    >>> reader = Edit("reader", "Name a reader.", "Write it for {edit}.")
    >>> compose(reader, "Explain the table.\\n\\n| a | b |", "a new nurse")
    'Explain the table. Write it for a new nurse.\\n\\n| a | b |'
    """
    if edit.form == EditForm.MATERIAL:
        key = "_".join(answer.lower().split())
        head, frame = _ended(text.partition(BLANK)[0], announces=True), edit.frame.replace("{key}", json.dumps(key))
        return f"{head}{frame}{BLANK}{as_json(text, key)}"
    phrase = answer.rstrip(" .!?。！？") if re.search(r"\{edit\}[.,。，、]", edit.frame) else answer
    added = edit.frame.replace("{edit}", phrase)
    if "{table}" in added:
        added = added.replace("{table}", _table(_items(answer)))
    if edit.whole:
        return added
    head, blank, material = text.partition(BLANK)
    return f"{_ended(head, bool(blank))}{added}{blank}{material}"


def _ended(head: str, announces: bool = False) -> str:
    """An instruction to be followed by one more sentence, with what parts the two.

    That sentence must not come between a colon and the material that it announces, run on from a line without a full
    stop, or belong to the last line of a list or of code.
    """
    head = head.rstrip()
    if announces and head[-1:] in _STOPS:
        head = f"{head[:-1]}{_STOPS[head[-1]]}"
    if "\n" in head:
        return f"{head}\n"
    if head and not _END.search(head):
        head += {1.0: ".", SHORT_WIDTH: "。"}.get(width(head[-1]), "")
    return head if head[-1:] in "。！？" else f"{head} "


def edit_problem(edit: Edit, text: str, answer: str) -> Reason | None:
    """Why no rewrite can be made of `answer`, or None: it is empty, malformed, copied, repetitive or vacuous."""
    if not any(map(str.isalnum, answer)):
        return Reason.EMPTY_EDIT
    said = _values(edit, answer)
    if said is None or not re.match(edit.pattern, answer):
        return Reason.MALFORMED_EDIT
    examples = [example for _, example in edit.examples]
    stem = set.intersection(*(set(_split(example)) for example in examples)) if len(examples) > 1 else ()
    words = _content(said, f"{edit.ask} {edit.frame} {' '.join(sorted(stem))}")
    if (len(words) if said.isascii() else count_words(said)) > MAX_WORDS:
        return Reason.MALFORMED_EDIT
    if len(words) - len(set(words)) >= max(1, len(words) / 3):
        return Reason.REPETITIVE_EDIT
    old = set(_content(text))
    new = [word for word in words if word not in old]
    shown = {word for example in examples for word in _content(example)}
    if answer in examples or (new and _share(new, shown) >= 2 / 3):
        return Reason.COPIED_EDIT
    if edit.form == EditForm.RECORD and edit.fresh:  # A made-up name alone says nothing.
        new = new if all(set(_content(value)) - old for value in json.loads(answer).values()) else []
    too_close = edit.whole and edit.fresh and len(new) < 0.4 * len(words)
    return Reason.VACUOUS_EDIT if not words or (edit.fresh and not new) or too_close else None


def _values(edit: Edit, answer: str) -> str | None:
    """The words of an answer that count, or None where it has not the form that was asked for."""
    if edit.form == EditForm.ITEMS:
        items = _items(answer)
        known = {item.lower() for item in items}
        short = 3 <= len(known) == len(items) <= 4 and max(map(count_words, items)) <= 4
        return " ".join(items) if short else None
    if edit.form == EditForm.RECORD:
        try:
            record = json.loads(answer)
            wanted = json.loads(edit.examples[0][1]) if edit.examples else record
        except ValueError:
            return None
        if not isinstance(record, dict) or list(record) != list(wanted):
            return None
        return " ".join(record.values()) if all(isinstance(value, str) for value in record.values()) else None
    return answer


def _items(answer: str) -> list[str]:
    """The items of a list written in a sentence.

    >>> _items("warmth, light, and clean water.")
    ['warmth', 'light', 'clean water']
    """
    return [
        item.strip() for item in re.split(r"[,،]\s*(?:and\s+)?|[、，]|\s+and\s+", answer.strip(" .。")) if item.strip()
    ]


def _table(items: Sequence[str]) -> str:
    """A Markdown table that gives each item a share of the answer, the first the most; the shares add up to 100 %."""
    shares = (40, 30, 20, 10) if len(items) == 4 else (50, 30, 20)
    rows = (f"| {item[:1].upper()}{item[1:]} | {share} % |" for item, share in zip(items, shares))
    return "\n".join(("| Point | Share of the answer |", "|---|---|", *rows))


@lru_cache(maxsize=4_000)
def _content(text: str, besides: str = "") -> tuple[str, ...]:
    """Stems of the words that carry meaning, in order, without those of `besides`."""
    dropped = {_stem(word) for word in _split(besides)}
    words = (word for word in _split(text) if word not in _FUNCTION_WORDS)
    return tuple(stem for stem in map(_stem, words) if stem not in dropped)


def _split(text: str) -> list[str]:
    """Words in lower case; n-grams of characters in scripts without spaces. Symbols say nothing."""
    if text.isascii():
        return _WORD.findall(text.lower())
    return [word for word in words_of(text) if any(map(str.isalnum, word))]


def _stem(word: str) -> str:
    return word[:5]  # "purr" and "purring", "vaccine" and "vaccinate": close enough to tell repetition.


def _share(words: Sequence[str], of: set[str]) -> float:
    return sum(word in of for word in words) / len(words)
