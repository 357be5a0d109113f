"""Samplers: in go a random generator and an instruction, out come arguments of a constraint that fits it, or None.

The words they pick from are chosen so that no two kinds that may go together contradict each other: no phrase here
holds a comma, a digit or a mark that another kind may forbid, and no forbidden word stands in any phrase.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .languages import language_of
from .reading import words

Sampler = Callable[[Random, str], dict[str, Any] | None]

FORBIDDEN = ("very", "really", "however", "important", "good", "thing", "just", "many", "simply", "also", "great")
WANTED = ("example", "reason", "detail", "result", "difference", "moment", "choice", "balance", "question", "idea")
FIRST_WORDS = ("Imagine", "Consider", "Surely", "Today", "Before", "Picture", "Perhaps")
LAST_WORDS = ("indeed", "today", "forever", "everyone", "together", "tomorrow", "done")
END_PHRASES = (
    "That is all there is to it.",
    "Let me know what you think.",
    "More on this another time.",
    "The rest is up to you.",
)
QUESTION_PHRASES = ("Is there anything else I can help with?", "What would you add?")
MARKERS = ("P.S.", "P.P.S")
JSON_KEYS = (
    ("answer", "reason"),
    ("summary", "details"),
    ("title", "steps", "result"),
    ("claim", "evidence", "doubt"),
)
LABELS = (("Answer", "Reason"), ("Summary", "Details"), ("Claim", "Evidence", "Doubt"), ("Problem", "Cause", "Remedy"))
TAGS = ("answer", "response", "output", "reply")
SPLITTERS = ("Section", "Part", "Chapter")
SEPARATORS = ("-->", "~~", "##>")
TOLD_LANGUAGES = ("de", "fr", "es", "it")
COMMON_LETTERS, RARE_LETTERS = "bcdfghlmprstw", "qxzj"
CODE_LANGUAGES = {
    "python": r"python|pandas|numpy|django",
    "javascript": r"javascript|node\.?js|react",
    "typescript": r"typescript",
    "sql": r"sql|database query",
    "bash": r"bash|shell script|command line",
    "java": r"java",
    "cpp": r"c\+\+|cpp",
    "rust": r"rust",
    "html": r"html",
    "css": r"css",
}
CODE = re.compile(
    r"\b(?:code|function|script|program|programme|regex|regular expression|algorithm|class|method|query|api|"
    + "|".join(CODE_LANGUAGES.values())
    + r")\b|```|\bdef \w|;\s*$",
    re.I | re.M,
)
_LONG = re.compile(
    r"\b(?:write|describe|explain|discuss|compose|plan|essay|story|why|how|compare|suggest|review|design|argue)\b",
    re.I,
)
_FACT = re.compile(
    r"\A\W*(?:who|when|where|which|how (?:many|much|old|far|long|tall|big)|what (?:is|are|was))\b", re.I
)
_YES_NO = re.compile(
    r"\A(?:is|are|do|does|did|can|could|will|would|should|has|have|was|were|may)\b[^?.!\n]+\?\s*\Z", re.I
)
_NUMBERS = re.compile(
    r"\d|\b(?:how (?:many|much|old|far|long)|numbers?|date|year|when|calculat\w*|sum|count|price|percent\w*|cost)\b",
    re.I,
)
_PLAIN_WORD = re.compile(r"\b[a-z]{5,12}\b")
_NO_KEYWORD = frozenset(
    """
    about above after again against along among around because before being below between beyond could doing during
    either every explain describe write first having might other please second should since something their there
    these things third those three through under until using where which while whose without would answer instruction
    question suggest compare discuss short long less least sentence sentences paragraph words exactly give tell list
    name make your yours each both some such then than them they when what from with that this have will into over only
    more most much many very well were does done even ever here just like must near need once same
    """.split()  # noqa: SIM905
) | frozenset((*FORBIDDEN, *(word.lower() for word in (*FIRST_WORDS, *LAST_WORDS))))


def nothing(rng: Random, text: str) -> dict[str, Any] | None:
    """No arguments are needed."""
    return {}


def never(rng: Random, text: str) -> dict[str, Any] | None:
    """Only who knows the result can give the arguments."""
    return None


def number(name: str, low: int, high: int, step: int = 1) -> Sampler:
    """A number from `low` to `high`."""
    return lambda rng, text: {name: rng.randrange(low, high + 1, step)}


def one_of(name: str, values: Sequence[Any]) -> Sampler:
    """One of some values; a tuple becomes a list."""
    return lambda rng, text: {name: list(value) if isinstance(value := rng.choice(values), tuple) else value}


def amount(
    name: str, at_least: Sequence[int], less_than: Sequence[int], relation: str = "relation", fact: bool = True
) -> Sampler:
    """A number and its relation; "at least" only where the instruction asks for more than a fact, unless `fact`."""

    def sampler(rng: Random, text: str) -> dict[str, Any] | None:
        choices = [("less than", value) for value in less_than]
        if fact or asks_for_a_text(text):
            choices += [("at least", value) for value in at_least]
        said, value = rng.choice(choices)
        return {name: value, relation: said}

    return sampler


def asks_for_a_text(text: str) -> bool:
    """Whether an instruction asks for more than a fact."""
    return bool(_LONG.search(text)) and not _FACT.match(text)


def only_for_texts(sampler: Sampler) -> Sampler:
    """The sampler, for instructions that ask for more than a fact."""
    return lambda rng, text: sampler(rng, text) if asks_for_a_text(text) else None


def subjects(text: str) -> list[str]:
    """Words of an instruction that an answer will hold anyway, or may well hold."""
    found = dict.fromkeys(_PLAIN_WORD.findall(text))
    return [word for word in found if word not in _NO_KEYWORD]


def keywords(low: int, high: int) -> Sampler:
    """Words of the instruction, filled up with others that fit any text."""

    def sampler(rng: Random, text: str) -> dict[str, Any] | None:
        count, known = rng.randint(low, high), subjects(text)
        if not known:
            return None
        chosen = rng.sample(known, min(count, len(known)))
        others = [word for word in WANTED if word not in chosen]
        return {"keywords": chosen + rng.sample(others, count - len(chosen))}

    return sampler


def frequency(rng: Random, text: str) -> dict[str, Any] | None:
    known = subjects(text)
    return {"keyword": rng.choice(known), "frequency": rng.randint(2, 4), "relation": "at least"} if known else None


def forbidden(rng: Random, text: str) -> dict[str, Any] | None:
    """Common words that the instruction does not use."""
    used = {word.lower() for word in words(text)}
    free = [word for word in FORBIDDEN if word not in used]
    return {"forbidden_words": sorted(rng.sample(free, rng.randint(2, 3)))}


def keyword_and_place(rng: Random, text: str) -> dict[str, Any] | None:
    known = subjects(text)
    return {"word": rng.choice(known), "N": rng.randint(1, 3)} if known else None


def letters(rng: Random, text: str) -> dict[str, Any] | None:
    if rng.random() < 0.5:
        return {"letter": rng.choice(RARE_LETTERS), "let_frequency": rng.randint(3, 5), "let_relation": "less than"}
    return {"letter": rng.choice(COMMON_LETTERS), "let_frequency": rng.randint(6, 15), "let_relation": "at least"}


def initials(rng: Random, text: str) -> dict[str, Any] | None:
    return {"letter": rng.choice(COMMON_LETTERS), "frequency": rng.randint(3, 6), "relation": "at least"}


def marks(rng: Random, text: str) -> dict[str, Any] | None:
    mark, low = rng.choice((("!", 1), ("?", 1), (";", 1), (":", 1)))
    return {"mark": mark, "frequency": low + rng.randint(0, 2), "relation": "at least"}


def paragraph_and_word(rng: Random, text: str) -> dict[str, Any] | None:
    count = rng.randint(2, 4)
    word = rng.choice(FIRST_WORDS).lower()
    return {"num_paragraphs": count, "nth_paragraph": rng.randint(1, count), "first_word": word}


def words_between(rng: Random, text: str) -> dict[str, Any] | None:
    low = rng.randrange(40, 121, 10)
    return {"min_words": low, "max_words": low + rng.choice((20, 30, 40))}


def sections(rng: Random, text: str) -> dict[str, Any] | None:
    return {"section_spliter": rng.choice(SPLITTERS), "num_sections": rng.randint(2, 4)}


def first_sentence(rng: Random, text: str) -> dict[str, Any] | None:
    """The first line of a short instruction, to repeat."""
    line = text.strip().split("\n")[0].strip()
    return {"prompt_to_repeat": line} if 3 <= len(line.split()) <= 25 and '"' not in line else None


def code_language(rng: Random, text: str) -> dict[str, Any] | None:
    """The programming language that the instruction names."""
    for language, names in CODE_LANGUAGES.items():
        if re.search(rf"(?<!\w)(?:{names})(?!\w)", text, re.I):
            return {"language": language}
    return None


def told_language(rng: Random, text: str) -> dict[str, Any] | None:
    return {"language": rng.choice(TOLD_LANGUAGES)} if asks_for_a_text(text) else None


def yes_or_no(rng: Random, text: str) -> dict[str, Any] | None:
    return {} if _YES_NO.match(text.strip()) else None


def without_numbers(rng: Random, text: str) -> dict[str, Any] | None:
    return None if _NUMBERS.search(text) else {}


def is_english(text: str) -> bool:
    """Whether the wordings, which are English, fit the instruction."""
    return language_of(text) == "en" or (text.isascii() and language_of(text) == "")
