"""The operation breadth: another instruction of the same shape, about a rarer topic of the same field."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from .reading import Instruction
from .sentences import WORD
from .signs import is_choice
from .words import Choose, load

_BREADTH = load("breadth")


class _Field(NamedTuple):
    """A field of knowledge.

    Attributes:
        words: Lower-case words that show that a text belongs to it.
        topics: Rarer topics, grammatically singular and with their article, so that they fit any frame.
        frames: Sentences with `{t}` for a topic, `{u}` for another and `{n}` for a small number, by shape.
        contexts: Sentences a person might put before a request of this field.
    """

    name: str
    words: frozenset[str]
    topics: list[str]
    frames: dict[str, list[str]]
    contexts: list[str]


def _field(entry: dict[str, Any]) -> _Field:
    shapes = ("questions", "explains", "lists", "plans")
    common = () if entry["name"] in _BREADTH["self_contained"] else shapes
    frames = {shape: [*entry[shape], *(_BREADTH[shape] if shape in common else ())] for shape in shapes}
    frames |= {shape: _BREADTH[shape] for shape in ("compares", "compare_questions")}
    return _Field(entry["name"], frozenset(entry["words"]), entry["topics"], frames, entry["contexts"])


def _bare(topic: str) -> str:
    """A topic in lower case without its article."""
    return re.sub(r"^(?:the|an?) ", "", topic.lower())


FIELDS = tuple(_field(entry) for entry in load("fields"))


def _places(entries: Iterable[tuple[str, object]]) -> dict[str, list]:
    """All values of each key, in order."""
    places: dict[str, list] = {}
    for key, value in entries:
        places.setdefault(key, []).append(value)
    return places


def _longest_word(phrase: str) -> str:
    return max(WORD.findall(phrase), key=len)


_FIELDS_OF_WORD = _places((word, index) for index, field in enumerate(FIELDS) for word in field.words)
_TOPICS_OF_WORD = _places(
    (_longest_word(_bare(topic)), (_bare(topic), index))
    for index, field in enumerate(FIELDS)
    for topic in field.topics
)
_ABOUT: dict[str, str] = _BREADTH["about"]
_TAILS: list[str] = _BREADTH["tails"]
_PRODUCT_TAILS: list[str] = _BREADTH["product_tails"]
_WRITTEN = ("creative", "short", "letter", "write", "passage", "form")
_CODE_TASKS: list[str] = _BREADTH["code_tasks"]
_PROBLEMS: list[str] = _BREADTH["problems"]
_PROBLEM_LEADS: list[str] = _BREADTH["problem_leads"]
_WEAK_WORDS = frozenset(_BREADTH["weak_words"])
# The shape of what is asked, by kind of instruction.
_SHAPES = {
    "question": "questions",
    "explain": "explains",
    "analyze": "explains",
    "list": "lists",
    "plan": "plans",
    "compare": "compares",
}
_COUNTS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LANGUAGE = re.compile(
    r"\b(python|javascript|typescript|java|c\+\+|c#|rust|go(?:lang)?|kotlin|ruby|php|haskell|bash)(?!\w)", re.I
)
_LANGUAGE_NAMES = {
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "php": "PHP",
    "golang": "Go",
    "bash": "Bash",
}
_MAKERS = ("Write", "Create", "Generate", "Compose", "Draft", "Develop", "Produce", "Craft", "Prepare")


def breadth(instruction: Instruction, choose: Choose) -> str | None:
    if instruction.kind == "code":
        return _other_code(instruction, choose) if _is_plain_code(instruction) else None
    if instruction.kind == "math":
        return _other_problem(choose) if _is_plain_problem(instruction) else None
    if instruction.kind == "question" and (is_choice(instruction.asked) or "or" in instruction.words):
        return None
    field = find_field(instruction)
    if field is None:
        return None
    text = instruction.head.lower() + instruction.rest.lower()
    topics = [topic for topic in field.topics if _bare(topic) not in text]
    new = _same_shape(instruction, field, topics, choose)
    return new and _same_length(instruction, new, field, choose)


_PLAIN_CODE = frozenset(("function", "program", "script"))
_OTHER_CODE = frozenset(("sql", "regex", "regexp", "regular", "html", "css", "class"))
_MENDED_CODE = frozenset(("fix", "debug", "bug", "error", "refactor", "optimize", "explain"))


def _is_plain_code(instruction: Instruction) -> bool:
    """Whether a function, program or script is to be written from nothing, in whose place another can be."""
    found = frozenset(instruction.words)
    return not instruction.rest and bool(found & _PLAIN_CODE) and not found & (_OTHER_CODE | _MENDED_CODE)


def _other_code(instruction: Instruction, choose: Choose) -> str:
    named = _LANGUAGE.search(instruction.head)
    language = _LANGUAGE_NAMES.get(named[1].lower(), named[1].capitalize()) + " " if named else ""
    noun = next((noun for noun in ("function", "program", "script") if noun in instruction.words), "function")
    tasks = [entry for entry in _CODE_TASKS if entry not in instruction.head]
    return f"{_maker(instruction)} a {language}{noun} that {choose(tasks)}."


def _is_plain_problem(instruction: Instruction) -> bool:
    """Whether a problem states its numbers itself and belongs to no science but mathematics."""
    field = find_field(instruction)
    own = field is None or field.name not in ("physics", "chemistry", "data", "programming")
    return own and not instruction.rest and bool(re.search(r"\b\d", instruction.head))


def _other_problem(choose: Choose) -> str:
    numbers = {"a": choose(range(3, 7)), "b": choose(range(12, 41)), "c": choose(range(120, 301, 12))}
    problem = choose(_PROBLEMS)
    lead = "" if problem.startswith(("Solve", "Find", "Differentiate")) else choose(_PROBLEM_LEADS) + " "
    return lead + problem.format(**numbers)


def _maker(instruction: Instruction) -> str:
    first = instruction.words[0].capitalize()
    return first if first in _MAKERS else "Write"


def find_field(instruction: Instruction) -> _Field | None:
    """The field most words of the instruction belong to; the material decides when the instruction says nothing.

    None where another field has as many, or where the only such word has other senses.
    """
    scores = _scores([word for word in instruction.words if word != instruction.product], instruction.asked)
    if not scores and instruction.rest:
        lower = instruction.rest[:1500].lower()
        scores = {index: score for index, score in _scores(WORD.findall(lower), lower).items() if score > 2}
    best, second = ([*sorted(scores.values(), reverse=True), 0, 0])[:2]
    return FIELDS[max(scores, key=scores.__getitem__)] if best > max(second, 1) else None


def _scores(found: list[str], lower: str) -> dict[int, int]:
    """Points by field, in the order in which the fields are first mentioned."""
    scores: dict[int, int] = {}
    for word in dict.fromkeys(found):
        for index in _FIELDS_OF_WORD.get(word, ()):
            scores[index] = scores.get(index, 0) + (1 if word in _WEAK_WORDS else 2)
        for phrase, index in _TOPICS_OF_WORD.get(word, ()):
            if phrase in lower:
                scores[index] = scores.get(index, 0) + 5
    return scores


def _same_shape(instruction: Instruction, field: _Field, topics: list[str], choose: Choose) -> str | None:
    """A new instruction about one of `topics` in the shape of the old one, or None when its shape cannot be kept."""
    topic = choose(topics)
    if instruction.kind in _WRITTEN:
        return _same_product(instruction, field, topic)
    shape = _SHAPES.get(instruction.kind)
    if shape is None:
        return None
    if shape == "compares" and "?" in instruction.asked:
        shape = "compare_questions"
    frames = field.frames[shape]
    if shape == "questions":
        alike = [frame for frame in frames if frame.lower().startswith(instruction.words[0] + " ")]
        frames = alike if len(alike) > 2 else frames
    other = choose([entry for entry in topics if entry != topic])
    return choose(frames).format(t=topic, u=other, n=choose(_COUNTS))


_BOUND = re.compile(r"\b(?:of|for|to|given|following|cover|recommendation|reference|resignation|one-sentence)\b")


def _same_product(instruction: Instruction, field: _Field, topic: str) -> str | None:
    """The same kind of text about another topic; None when its kind or its attributes belong to the old one."""
    lead = _ABOUT.get(instruction.product)
    named = lead and re.search(rf"\b(an?) ((?:[a-z-]+,? ){{0,3}}){instruction.product}\b", instruction.head)
    if not named or _BOUND.search(named[2]):
        return None
    attributes = [word for word in WORD.findall(named[2]) if word in _FIELDS_OF_WORD]
    if not field.words.issuperset(attributes):
        return None
    return f"{_maker(instruction)} {named[0]} {lead} {topic}."


def _same_length(instruction: Instruction, new: str, field: _Field, choose: Choose) -> str:
    """The new instruction, with sentences around it while it is much shorter than the old one."""
    wanted = 0 if instruction.kind == "short" else 0.75 * min(instruction.size, 50)
    written = instruction.kind in _WRITTEN
    if len(new.split()) < wanted and not written:
        new = f"{choose(field.contexts)} {new}"
    tails = list(_PRODUCT_TAILS if written else _TAILS)
    for _ in range(3):
        if len(new.split()) < wanted:
            new = f"{new} {tails.pop(tails.index(choose(tails)))}"
    return new
