"""Drafts: a plain structured text in place of an answer."""

import re

from ...text.tokens import CONTROL_TOKEN
from .material import BULLET
from .reading import CODE_WORDS, VERBS, Instruction, read
from .sentences import WORD, capital, closed, sentences
from .words import load

_MARKERS = re.compile(
    rf"{CONTROL_TOKEN.pattern}|\[(?:instruction|answer|item|first|second|end)(?: \d+)? [0-9a-f]{{12}}\]|```\w*"
)
_TERM = re.compile(WORD.pattern + r"|[^\w\s]")
_APOLOGY = re.compile(r"\bsorry\b|\bapolog", re.I)
_SKELETONS: dict[str, list[str]] = load("skeletons")
_STOP_WORDS = frozenset(load("reading")["stop_words"])


def draft(text: str) -> str:
    """A structured draft of an answer to `text`, which uses the text's own terms and says that rules wrote it.

    It restates the request, its requirements and its material, and gives a skeleton for the kind of answer asked for.
    """
    instruction = read(_MARKERS.sub(" ", text).strip())
    terms = _key_terms(instruction)
    said = [
        sentence.strip() for sentence in sentences(" ".join(instruction.head.split())) if not _APOLOGY.search(sentence)
    ]
    request, *demands = said or [", ".join(terms)]
    parts = [
        f"Draft made by rules, to be filled in. The request: {_shorten(request, 40)}",
        "Key terms: " + ", ".join(terms) + ".",
        _bullets("It also asks for this:", [_shorten(demand, 30) for demand in demands[:6]]),
        _bullets("Material to use:", [_shorten(BULLET.sub("", fact), 25) for fact in _facts(instruction)]),
        _code_skeleton(instruction, terms) if instruction.kind == "code" else _skeleton(instruction, terms),
    ]
    return "\n\n".join(part for part in parts if part)


def _key_terms(instruction: Instruction) -> list[str]:
    """Up to ten terms, each a run of at most three content words, in order of appearance; the material's come last."""
    terms: dict[str, str] = {}
    run: list[str] = []
    for word in [*_TERM.findall(instruction.head), ".", *_TERM.findall(instruction.rest[:2000]), "."]:
        plain = word.lower()
        if WORD.match(word) and plain not in _STOP_WORDS and plain not in VERBS and not _APOLOGY.search(word):
            run.append(word)
        if run and (run[-1] != word or len(run) == 3):
            terms.setdefault(" ".join(run).lower(), " ".join(run))
            run = []
    return list(terms.values())[:10] or ["the request as it stands"]


def _shorten(text: str, limit: int) -> str:
    """At most `limit` words, closed by a mark."""
    found = text.split()
    return " ".join(found[:limit]) + " ..." if len(found) > limit else closed(" ".join(found).rstrip(":"))


def _bullets(title: str, entries: list[str]) -> str:
    return "\n".join([title, *(f"- {entry}" for entry in entries)]) if entries else ""


def _facts(instruction: Instruction) -> list[str]:
    lines = [line.strip() for line in instruction.rest.splitlines() if line.strip()]
    facts = sentences(lines[0]) if len(lines) == 1 else lines
    return [fact for fact in facts if not _APOLOGY.search(fact) and WORD.search(fact)][:4]


def _skeleton(instruction: Instruction, terms: list[str]) -> str:
    """The title and numbered lines that fit the kind of task, filled with its terms in turn."""
    title, *lines = _SKELETONS.get(instruction.kind, _SKELETONS["other"])
    filled = [line.format(term=f'"{terms[place % len(terms)]}"') for place, line in enumerate(lines)]
    return "\n".join([title, *(f"{number}. {capital(line)}" for number, line in enumerate(filled, 1))])


def _code_skeleton(instruction: Instruction, terms: list[str]) -> str:
    """A function of the right name in a fence, with comments where its body would stand."""
    plain = [
        word for word in re.findall(r"[a-z]+", " ".join(terms).lower()) if word not in CODE_WORDS and word != "script"
    ]
    name = "_".join(plain[:4]) or "solve"
    steps = (
        "check the arguments",
        f"handle the plain case of {terms[0]}",
        f"handle the edge cases of {terms[-1]}",
        "return the result",
    )
    if re.search(r"\b(?:javascript|typescript|java|c\+\+|c#|rust|php)(?!\w)", instruction.asked):
        body = "\n".join(f"  // {number}. {step}" for number, step in enumerate(steps, 1))
        return f"A skeleton to complete:\n\n```\nfunction {name}(input) {{\n{body}\n}}\n```"
    body = "\n".join(f"    # {number}. {step}" for number, step in enumerate(steps, 1))
    return f"A skeleton to complete:\n\n```python\ndef {name}(value):\n{body}\n    raise NotImplementedError\n```"
