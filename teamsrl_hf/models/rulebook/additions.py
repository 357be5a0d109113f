"""The operations add_constraints, deepen and increase_reasoning: each adds one sentence to an instruction."""

import re

from .breadth import find_field
from .reading import PERSONAL, Instruction
from .sentences import QUESTION_WORDS, TOKEN, join, sentences
from .signs import has_code, has_figures, has_one_answer, has_quote, options_in_line
from .wordings import CONSTRAINT_KINDS, CONSTRAINTS, FOLLOW_TAILS, FOLLOW_UPS, REASONING, fill
from .words import Choose, load

_BLUNT = re.compile(
    r"\bdirectly\b|\bonly (?:output|the)\b|\boutput only\b|\b(?:just|only) (?:output|give|the)\b|\b(?:one"
    r"|single)[- ]word\b"
    r"|\bfinal answer\b",
    re.I,
)
_LONGEST = 130  # Words; a longer instruction would no longer be clear after one more sentence.


# Kinds of tasks that work on what they quote, so that it is no code and no question of fact.
_QUOTING = ("translate", "rewrite", "edit", "creative", "short", "write", "letter", "passage")


def _takes_a_sentence(instruction: Instruction) -> bool:
    """Whether one more sentence can stand in an instruction: not after a quotation, code, or options in a line."""
    head = instruction.head
    if instruction.size > _LONGEST or has_code(head) or options_in_line(head):
        return False
    return instruction.kind in _QUOTING or not has_quote(head)


def _is_closed(instruction: Instruction) -> bool:
    """Whether an instruction has one right answer."""
    figures = instruction.kind == "question" and has_figures(instruction.asked)
    return figures or has_one_answer(instruction.asked)


def _add(instruction: Instruction, sentence: str) -> str:
    """The text with one more sentence in its instruction."""
    return join(instruction.head, sentence, bool(instruction.rest)) + instruction.rest


_QUERIES = frozenset(("sql", "regex", "regexp", "regular", "html", "css"))


def add_constraints(instruction: Instruction, choose: Choose) -> str | None:
    if not _takes_a_sentence(instruction) or (instruction.kind == "question" and _is_closed(instruction)):
        return None
    names = CONSTRAINT_KINDS[_constraint_group(instruction)]
    carried = {name for name in names if CONSTRAINTS[name].carried_by(instruction.head)}
    name = choose(names)
    if name in carried or len(carried) > 1 or _BLUNT.search(instruction.head):
        return None
    return _add(instruction, fill(choose(CONSTRAINTS[name].templates), choose))


def _constraint_group(instruction: Instruction) -> str:
    if instruction.kind == "code" and not _QUERIES.isdisjoint(instruction.words):
        return "query"
    return "reading" if instruction.rest and instruction.kind == "question" else instruction.kind


_INQUIRING = ("question", "explain", "compare", "analyze")
_SOCIAL_FIELDS = frozenset(load("additions")["social_fields"])
_CHOICES = frozenset(load("additions")["choices"])


_YES_OR_NO = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "can")


def deepen(instruction: Instruction, choose: Choose) -> str | None:
    if instruction.kind not in _INQUIRING or not _takes_a_sentence(instruction):
        return None
    if _is_closed(instruction) or has_code(instruction.rest):
        return None
    if instruction.rest and instruction.words[0] in _YES_OR_NO:
        return None
    asked = [
        name
        for name in FOLLOW_UPS
        if FOLLOW_UPS[name].carried_by(instruction.head) or FOLLOW_TAILS[name].carried_by(instruction.head)
    ]
    left = [name for name in _follow_ups_for(instruction) if name not in asked]
    if len(asked) > 1 or not left:
        return None
    name = choose(left)
    last = sentences(instruction.head.rstrip())[-1]
    if _takes_tail(last) and choose((True, True, False)):
        tail = fill(choose(FOLLOW_TAILS[name].templates), choose)
        return f"{instruction.head.rstrip()[:-1]}, {tail}?{instruction.rest}"
    return _add(instruction, fill(choose(FOLLOW_UPS[name].templates), choose))


def _follow_ups_for(instruction: Instruction) -> tuple[str, ...]:
    """Kinds of follow-up that make sense: of a matter of nature, say, one does not ask whom it affects."""
    choice = ("tradeoff",) if not _CHOICES.isdisjoint(instruction.words) else ()
    if instruction.rest:
        return ("basis",) if instruction.kind == "question" else ("cause", "consequence")
    if instruction.words[0] == "who":
        return ("role",)
    if _HOW_TO.search(instruction.asked):
        return ("obstacle", *choice)
    if not PERSONAL.isdisjoint(instruction.words):
        return ("cause", "parts", *choice)
    field = find_field(instruction)
    social = ("affected", "change") if field and field.name in _SOCIAL_FIELDS else ()
    fact = (
        instruction.kind == "compare"
        or instruction.words[0] in ("when", "where", "which")
        or instruction.words[:3] == ["what", "is", "the"]
    )
    return ("cause", "consequence", *(() if fact else ("parts",)), *choice, *social)


_HOW_TO = re.compile(
    r"\bhow (?:(?:do|can|could|should|would) (?:i|we|you|one)|to)\b|\bwhat (?:can|should|could) (?:i|we|one)\b"
)


def _takes_tail(question: str) -> bool:
    """Whether a further question can be woven into this one."""
    opening = TOKEN.match(question.lower())
    plain = not re.search(r"[,:;\n\"“]| and | or ", question)
    return opening is not None and opening[0] in QUESTION_WORDS and question.endswith("?") and plain


_FAULT = re.compile(r"\b(?:debug|fix|bugs?|errors?|faults?|fails?|crash\w*|wrong|exception)\b", re.I)


def increase_reasoning(instruction: Instruction, choose: Choose) -> str | None:
    kind = "debug" if instruction.kind == "code" and _FAULT.search(instruction.head) else instruction.kind
    wordings = REASONING.get(kind)
    if wordings is None or not _takes_a_sentence(instruction):
        return None
    if wordings.carried_by(instruction.head) or _BLUNT.search(instruction.head):
        return None
    return _add(instruction, fill(choose(wordings.templates), choose))
