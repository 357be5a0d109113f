"""Checks of results: in goes an answer, out comes whether its final number or expression is the one that is wanted.

Numbers are compared exactly, as fractions. An expression that is no number, such as `2\\sqrt{3}`, is compared by
`math_verify` where that package is installed, and as text where it is not.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec

_BOXED = re.compile(r"\\boxed\s*\{")
_SAID = re.compile(
    r"(?:final answer|answer|result|total)\s*(?:is|are|=|:)\s*(?:about|approximately|exactly|equal to)?",
    re.I,
)
_NUMBER = re.compile(
    r"(?<![\w.,])[-+−]?(?:\$|€|£)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,40})(?:\.\d{1,40})?(?:\s?/\s?\d{1,40})?(?:\s?%)?"
)
# What takes long to evaluate, or for ever: nested or high powers, factorials, long texts.
_COSTLY = re.compile(r"!|\^[^^]*\^|\^\s*\{?[^}\s]{3}|\d{10}|.{101}", re.S)


def numeric(answer: str, *, value: str) -> bool:
    """The answer's last result equals `value`: what it boxes, or says the answer is, else its last number."""
    found = result_of(answer)
    return found is not None and same_result(found, value)


def agreement(answer: str, *, answers: Sequence[str], share: float) -> bool:
    """The answer's result is that of at least this share of k sampled answers, and of more than any other result."""
    own = result_of(answer)
    results = [result_of(one) for one in answers]
    votes = Counter(_key(result) for result in results if result is not None)
    if own is None or not answers:
        return False
    number = votes.pop(_key(own), 0)
    return number >= share * len(answers) and number > max(votes.values(), default=0)


def result_of(answer: str) -> str | None:
    """The text of an answer's result, or None where it names none.

    >>> result_of("So 3 + 4 = 7. The answer is $1,200.50."), result_of("No."), result_of("Thus \\\\boxed{x^2}")
    ('1,200.50', None, 'x^2')
    """
    boxed = list(_BOXED.finditer(answer))
    if boxed:
        return _braced(answer, boxed[-1].end())
    said = list(_SAID.finditer(answer))
    # Of "the answer is 3 + 4 = 7" the result is what stands last.
    line = answer[said[-1].end() :].split("\n")[0].split(". ")[0] if said else ""
    if number := _NUMBER.search(line.rpartition("=")[2]):
        return number[0].lstrip("$€£")
    numbers = _NUMBER.findall(answer)
    return numbers[-1].lstrip("$€£") if numbers else None


def same_result(first: str, second: str) -> bool:
    """Whether two results are equal, as numbers if both are.

    >>> same_result("1,200.50", "1200.5"), same_result("0.5", "1/2"), same_result("50%", "0.5"), same_result("7", "8")
    (True, True, True, False)
    """
    one, other = to_fraction(first), to_fraction(second)
    if one is not None and other is not None:
        return one == other
    return _key(first) == _key(second) or _same_expression(first, second)


def to_fraction(text: str) -> Fraction | None:
    """The number that a text is, exactly; None where it is none."""
    plain = re.sub(r"\\frac\s*\{(-?\d+)\}\s*\{(\d+)\}", r"\1/\2", text.strip().strip("$").replace("−", "-"))
    plain = re.sub(r"\\[,!% ]|[$€£,\s]", lambda found: "%" if "%" in found[0] else "", plain).rstrip(".")
    number, percent, rest = plain.partition("%")
    try:
        value = Fraction(number) if len(number) <= 100 and not rest and "e" not in number.lower() else None
    except (ValueError, ZeroDivisionError):
        return None
    return value / 100 if value is not None and percent else value


def _key(result: str) -> str:
    number = to_fraction(result)
    return str(number) if number is not None else re.sub(r"\s+|\\[,! ]", "", result)


def _braced(text: str, start: int) -> str | None:
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start:place].strip()
    return None


def _same_expression(first: str, second: str) -> bool:
    if find_spec("math_verify") is None or _COSTLY.search(first) or _COSTLY.search(second):
        return False
    from math_verify import LatexExtractionConfig, parse, verify

    # Its limits of time are signals, which only a main thread may set; `_COSTLY` stands in for them.
    rules = {"extraction_config": [LatexExtractionConfig()], "fallback_mode": "no_fallback", "parsing_timeout": None}
    wanted, given = (parse(f"${text}$", **rules) for text in (second, first))
    return bool(wanted and given) and bool(verify(wanted, given, timeout_seconds=None))
