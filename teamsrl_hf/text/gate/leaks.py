"""Traces of the prompt in a rewrite: in go texts, out comes whether markers, clauses or examples were copied."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from ..operations import REWRITE_FRAME, Operation, fence
from ..plans import PACK_FRAME, PLAN_FRAME
from ..questions import QUESTIONS
from ..words import words
from .english import is_about_subject

_FENCE_LINE = r"\[(?:instruction|answer|item|end|first|second)(?: \d+)? [0-9a-f]{12}\]"
_FENCES = re.compile(_FENCE_LINE, re.I)
_MARKERS = re.compile(
    r"\b(?:the|my|your|#+)?\s*(?:given|rewritten|created|original|new|finished)[ _-]prompts?\b#*"
    rf"|{_FENCE_LINE}|\[[0-9a-f]{{12}}\]|\b2,?048\s+words\b|\bmarker lines?\b|^\W*operation: ?\w+",
    re.I | re.M,
)
_IN_MARKERS = ("prompt", "[", "048", "marker", "operation:")
# Whoever writes this speaks of the rewriting, not of what is asked. Evol-Instruct's prompt names ChatGPT.
_TALK = re.compile(
    r"\b(?:re-?written|re-?phrased|revised|modified|finished|original|edited|evolved|improved|harder|updated|new"
    r"|given|above|following|more (?:complex|difficult|challenging)) (?:instruction|prompt)s?\b"
    r"|\b(?:re-?written|re-?phrased|harder|more (?:complex|difficult|challenging)) version\b"
    r"|\b(?:the|this|these|your|an?) (?:instruction|prompt)s? (?:is|are|was|asks?|should|must|can|requires?|to)\b"
    r"|\b(?:rewrite|rephrase|edit|modify|reword|change|complicate|deepen|concretize) (?:the|this|an?|your|it|that) ?"
    r"(?:given |following )?(?:instruction|prompt|input|question|request|task)s?\b"
    r"|\bi(?:'ve| have|'ll| will|'m| am)? (?:re-?written|rewrote|rephrased|revised|modified|rewriting|added a"
    r"|changed the|made it|made the|provide you|going to rewrite|provide a)\b"
    r"|\bmore (?:engaging|challenging|complex|difficult) (?:and \w+ )?(?:for|version|instruction)\b"
    r"|\b(?:chat ?gpt|gpt-?[345]|ai systems?|ai assistants?)\b",
)
_TALK_HINTS = (
    *("instruction", "prompt", "version", "writ", "gpt", "ai ", "i'", "i have", "i will", "i am", "input", "question"),
    *("request", "task", "engag", "challeng", "complex"),
)
_JOINING = re.compile(r"\A(?:then|also|and|after that|in addition|next|finally|afterwards)\b[^:.?!]{0,40}:\s+", re.I)
_RUN = 6  # Words.


def leaks_template(rewrite: str, instruction: str, operations: Operation | Sequence[Operation]) -> bool:
    """Whether `rewrite` holds a marker or six words in a row of the prompt that `instruction` did not hold itself."""
    lower = rewrite.lower()
    # A search for plain words is a hundred times as fast as one for the pattern, and nearly always enough.
    marker = _MARKERS.search(rewrite) if any(word in lower for word in _IN_MARKERS) else None
    if marker and marker.group().strip().lower() not in instruction.lower():
        return True
    if fence(instruction) in lower:
        return True
    used = (operations,) if isinstance(operations, Operation) else sorted(set(operations), key=lambda o: o.name)
    leaked = _grams_of_template(rewrite, tuple(used))
    return bool(leaked and leaked - _runs(instruction))


def leaks_fence(text: str) -> bool:
    """Whether a text holds a marker line of a prompt."""
    return "[" in text and bool(_FENCES.search(text))


def talks_of_rewriting(rewrite: str, instruction: str) -> bool:
    """Whether a rewrite speaks of instructions, prompts or its own rewriting, and the instruction did not.

    >>> talks_of_rewriting("I have rewritten the instruction.", "Name a bird.")
    True
    """
    lower = rewrite.lower()
    if not any(hint in lower for hint in _TALK_HINTS):
        return False
    before = instruction.lower()
    return any(found[0] not in before for found in _TALK.finditer(lower))


def copies_example(rewrite: str, instruction: str, examples: Sequence[str]) -> bool:
    """Whether a rewrite holds six words in a row of a worked example that its instruction did not hold.

    >>> copies_example("Name a bird and who paid for the wall.", "Name a bird.", ["and who paid for the wall"])
    True
    """
    copied = _runs(rewrite) & _runs_of(tuple(examples)) - _runs(instruction) if examples else ()
    return any(map(is_about_subject, copied))


def added_text(instruction: str, rewrite: str) -> str | None:
    """What stands behind the unchanged instruction, without the words that join it to it; None where it was changed.

    >>> added_text("Name a bird.", "Name a bird. Then answer this too: Where does it live?")
    'Where does it live?'
    """
    if not rewrite.startswith(instruction.strip()):
        return None
    added = rewrite[len(instruction.strip()) :].strip()
    return _JOINING.sub("", added) or added


def shared_phrases(pairs: Iterable[tuple[str, str]], least: int = 3) -> tuple[str, ...]:
    """Runs of six words that the rewrites of several unlike instructions have and the instructions have not.

    They stand in for the worked examples of a prompt that is not known: unrelated questions do not by chance get the
    same clause.

    Args:
        pairs: Instructions with their rewrites.
        least: In how many different instructions' rewrites a run must stand.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for instruction, rewrite in pairs:
        for run in _runs(added_text(instruction, rewrite) or rewrite) - _runs(instruction):
            found[run].add(instruction)
    return tuple(sorted(run for run, owners in found.items() if len(owners) >= least and is_about_subject(run)))


@lru_cache(maxsize=10_000)
def _grams_of_template(text: str, operations: tuple[Operation, ...]) -> frozenset[str]:
    # Remembered in place of all grams of a text: nearly always there are none, and a long text has thousands.
    grams, starts = _template_grams(operations)
    tokens = words(text)
    near = [i for i, pair in enumerate(pairwise(tokens)) if pair in starts]
    return frozenset(" ".join(tokens[i : i + _RUN]) for i in near) & grams


def _runs(text: str) -> frozenset[str]:
    tokens = words(text)
    return frozenset(" ".join(tokens[i : i + _RUN]) for i in range(len(tokens) - _RUN + 1))


@lru_cache(maxsize=64)
def _runs_of(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset().union(*map(_runs, texts))


@lru_cache(maxsize=256)
def _template_grams(operations: tuple[Operation, ...]) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """Six words in a row of the prompts, and the first two of each, by which they are looked for."""
    frames = (REWRITE_FRAME, PLAN_FRAME, PACK_FRAME, *(question.frame for question in QUESTIONS.values()))
    grams = frozenset().union(*map(_runs, (*frames, *(operation.sentence for operation in operations))))
    return grams, frozenset(tuple(gram.split(" ", 2)[:2]) for gram in grams)
