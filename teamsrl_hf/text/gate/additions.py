"""What a rewrite adds: in go a text and its rewrite, out comes whether anything new is asked, or too much repeated."""

import re
from collections import Counter
from functools import lru_cache

from ..words import count_words, normalise, words
from .english import STOP_WORDS, content, is_english
from .material import holds_data, material, task_of
from .requests import asks, sentences

_FORMS = re.compile(
    r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|words?|sentences?|lines?|paragraphs?|pages?|bullets?|list|table"
    r"|columns?|rows?|steps?|examples?|quotes?|titles?|tone|style|rhymes?|verses?|letter|poem|json|format|audience"
    r"|readers?|child(?:ren)?|beginners?|experts?|avoid|without|except|only|no|not|limit|at (?:least|most)|exactly"
    r"|sources?|cite|numbered|headings?|summary|first person|present tense|language|diagram|formula|code)\b",
    re.I,
)
_ABOUT_ANSWER = re.compile(
    r"\W*(?:the|your|this|an?) (?:answer|response|reply|text|result|output|explanation) "
    r"(?:must|should|has to|needs to|shall)\b|\W*it (?:must|should)\b",
    re.I,
)
_DEMANDS = re.compile(
    r"\b(?:must|should|shall|has to|have to|needs? to|may not|cannot|can't|required?|at (?:least|most)"
    r"|no (?:more|longer|fewer)|exactly|only|avoid\w*|without|includ\w+|limit\w*|so that|for an?"
    r"|in (?:\w+ ){1,3}(?:words|sentences|steps|lines|format))\b",
    re.I,
)
_QUOTED = re.compile(r"\"[^\"\n]+\"|“[^”\n]+”")
_POINTS_BACK = re.compile(
    r"\b(?:it|its|this|that|these|those|they|them|their|he|she|him|her|his|such|both|ones?|there)\b", re.I
)
# Of an operation's task, how much of its subject must be kept.
_KEPT = {"add_constraints": 0.75, "complicate_input": 0.6}
_KEPT_ELSE = 0.3
# The least share of a fresh instruction's words that its source must not have, see `restates`.
_FRESH = 0.5
# How much shorter than its source a rewrite may be, by whether its operation adds, replaces or invents.
SHORTEST = {"breadth": 0.4, "concretize": 0.6}
_SHORTEST_ELSE = 0.8


def adds_nothing(instruction: str, added: str) -> bool:
    """Whether a rewrite, or an addition where it is known, says only what the instruction says.

    What asks for nothing more than a clear, good or complete answer says nothing: every answer should be that.

    >>> adds_nothing("Which muscles does rowing use?", "Which muscles does rowing use? Give a clear answer.")
    True
    """
    if is_english(added) or added.isascii():
        known = set(words(instruction))
        if any(not known.issuperset(words(quoted)) for quoted in _QUOTED.findall(added)):
            return False
        return not content(added) - content(instruction) and not _asks_how(added) - _asks_how(instruction)
    return not set(words(added)) - set(words(instruction))


def _asks_how(text: str) -> set[str]:
    return {word for word in normalise(text).split() if word in ("how", "why")}


def adds_little(instruction: str, edit: str) -> bool:
    """Whether a requirement brings less than two new words about a subject, and none about the answer's form.

    "The answer must show the faulty product's condition" asks for what was asked.
    """
    if _FORMS.search(edit) or not _ABOUT_ANSWER.match(edit):
        return False
    return len(content(edit) - content(instruction)) < 2


def asks_nothing(edit: str) -> bool:
    """Whether an addition is a bare statement: no question, request or requirement, and no data.

    >>> asks_nothing("This is a classic riddle."), asks_nothing("The answer must rhyme.")
    (True, False)
    """
    return not (any(map(asks, sentences(edit))) or _DEMANDS.search(edit) or holds_data(edit))


def is_about_else(instruction: str, edit: str) -> bool:
    """Whether a follow-up question shares no word with the instruction and points back at nothing in it."""
    questions = [sentence for sentence in sentences(edit) if sentence.endswith("?")]
    names_subject = any(len(content(question)) > 2 for question in questions)
    return names_subject and not _POINTS_BACK.search(edit) and leaves_subject(instruction, edit)


def restates(instruction: str, rewrite: str) -> bool:
    """Whether an instruction that ought to be another one is about what the first is about."""
    source, found = content(instruction), content(rewrite)
    return bool(source) and len(found - source) < _FRESH * len(found)


def leaves_subject(instruction: str, rewrite: str) -> bool:
    """Whether a rewrite shares no word with its instruction that is about a subject."""
    source = content(instruction)
    return len(source) > 1 and source.isdisjoint(content(rewrite))


def drops_requirement(instruction: str, rewrite: str, operation: str) -> bool:
    """Whether a sentence of an instruction has left no trace, or too little of its subject is left.

    >>> drops_requirement("Explain tides. Use a drawing of the moon.", "Explain tides and their causes.", "deepen")
    True
    """
    kept = content(rewrite)
    task = task_of(instruction)
    found = [content(sentence) for sentence in sentences(task)]
    if any(len(subject) > 1 and subject.isdisjoint(kept) for subject in found):
        return True
    whole = frozenset().union(*found)
    return len(whole & kept) < _KEPT.get(operation, _KEPT_ELSE) * len(whole)


def is_part(instruction: str, rewrite: str) -> bool:
    """Whether a rewrite is a piece cut out of its instruction."""
    return f" {normalise(rewrite)} " in f" {normalise(instruction)} "


def is_much_shorter(instruction: str, rewrite: str, operation: str) -> bool:
    """Whether a rewrite has far fewer words than what it rewrites; an operation that adds may drop next to none."""
    source = instruction if material(rewrite) else task_of(instruction)
    return count_words(rewrite) < SHORTEST.get(operation, _SHORTEST_ELSE) * count_words(source)


def repeats_itself(rewrite: str, instruction: str) -> bool:
    """Whether a rewrite repeats what its instruction did not: a sentence, four words three times, or a phrase at once.

    Lines of data may be alike: there a line must stand three times, and phrases are not looked at.

    >>> repeats_itself("Name a bird of prey. Name a bird of prey.", "Name a bird.")
    True
    """
    task, data = task_of(rewrite), material(rewrite)
    asked = Counter(map(normalise, sentences(task)))
    rest = Counter(map(normalise, sentences(data)))
    often = [line for line, count in asked.items() if count > 1] + [line for line, count in rest.items() if count > 2]
    if any(line.count(" ") > 1 and normalise(instruction).count(line) < 2 for line in often):
        return True
    return (_stammers(task) and not _stammers(instruction)) or _runs_on(task, instruction)


@lru_cache(maxsize=10_000)
def _stammers(text: str) -> bool:
    """Whether two to eight words about a subject stand twice in a row: "staying dry and staying dry"."""
    tokens = words(text)
    last: dict[str, int] = {}
    for place, token in enumerate(tokens):
        gap = place - last.get(token, -99)
        last[token] = place
        if gap > 9 or token in STOP_WORDS:
            continue
        size = gap - (tokens[place - 1] in ("and", "or"))
        phrase = tokens[place - gap : place - gap + size]
        if size > 1 and phrase == tokens[place : place + size] and STOP_WORDS.isdisjoint(phrase):
            return True
    return False


def _runs_on(text: str, instruction: str) -> bool:
    runs = _fours(text)
    often = [run for run, count in runs.items() if count > 2]
    before = _fours(instruction) if often else {}
    return any(runs[run] > max(2, before.get(run, 0) + 1) for run in often)


def _fours(text: str) -> dict[tuple[str, ...], int]:
    tokens = words(text)
    return Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:]))
