"""Reading a text: where the instruction ends, and what kind of task it is."""

import re
from dataclasses import dataclass
from functools import lru_cache

from .sentences import QUESTION_WORDS, TOKEN, WORD
from .signs import has_code, is_choice, is_sum, is_translation, lists_answers
from .wordings import own_spans
from .words import load


@dataclass(frozen=True, slots=True)
class Instruction:
    """A text, read.

    Attributes:
        head: The instruction, up to the first blank line.
        rest: The blank line and the material after it, character by character; empty when there is none.
        asked: `head` in lower case, without the sentences that the rulebook itself has added.
        words: Words of `asked`, in order.
        size: Number of words in `head`.
        kind: What is asked for; a key of `CONSTRAINT_KINDS`.
        product: The noun that names what is to be made ("poem"), or "".
    """

    head: str
    rest: str
    asked: str
    words: list[str]
    size: int
    kind: str
    product: str


BLANK_LINE = re.compile(r"\n[ \t]*\n")
_BOUNDARY = frozenset((".", "!", "?", ":", ";", "\n", "-", "–", "—"))
_LEAD_INS = frozenset(
    ("please", "you", "then", "and", ",", "me", "also", "must", "should", "just", "now", "kindly", "or")
)
_NEEDS = frozenset(("need", "want", "have", "like", "ask", "asked", "required", "try", "is", "me", "how"))

VERBS: dict[str, str] = {verb: kind for kind, bank in load("reading")["verbs"].items() for verb in bank}
_PRODUCTS: dict[str, str] = {noun: kind for kind, bank in load("reading")["products"].items() for noun in bank}
CODE_WORDS = frozenset(load("reading")["code_words"])
_OTHER_PROGRAMS = frozenset(load("reading")["other_programs"])
_ENGLISH = frozenset(load("reading")["english"]) | VERBS.keys()
_FOREIGN = frozenset(load("reading")["foreign"])
CODE = re.compile(
    r"```|^\s*(?:def |class \w+[(:]|import \w|from \w+ import|function \w*\(|#include|public |SELECT "
    r"|const |let |var |return\b)"
    r"|;\s*$|</[a-z]+\d?>|<!DOCTYPE",
    re.M,
)


@lru_cache(maxsize=10_000)
def read(text: str) -> Instruction:
    gap = BLANK_LINE.search(text)
    head, rest = (text[: gap.start()], text[gap.start() :]) if gap else (text, "")
    if not rest.strip():
        head, rest = text.rstrip(), ""
    asked = head
    for start, end in reversed(own_spans(head)):
        asked = asked[:start] + asked[end:]
    asked = asked.lower()
    found = WORD.findall(asked)
    kind, product = _kind(TOKEN.findall(asked), frozenset(found), rest)
    kind = _closed_kind(kind, asked, head + rest[:2000]) or kind
    return Instruction(head, rest, asked, found, len(head.split()), kind, product)


_SUMS = ("question", "analyze", "rewrite", "extract", "other")


def _closed_kind(kind: str, asked: str, text: str) -> str | None:
    """The kind of a task with one right answer that its verb or question word does not show, or None."""
    if lists_answers(text) or (kind in ("question", "ask", "other", "edit") and is_choice(asked)):
        return "classify"
    if kind in ("question", "rewrite", "edit", "extract", "other") and is_translation(asked):
        return "translate"
    return "math" if kind in _SUMS and is_sum(asked) and not has_code(text) else None


def is_english(instruction: Instruction) -> bool:
    """Whether the instruction has words enough, and more English function words than foreign ones."""
    if len(instruction.words) < 2 or not instruction.head.strip():
        return False
    letters = sum(map(str.isalpha, instruction.head))
    ascii_letters = sum(map(str.isalpha, instruction.head.encode("ascii", "ignore").decode()))
    english = sum(word in _ENGLISH for word in instruction.words)
    return ascii_letters >= 0.85 * letters and english > sum(word in _FOREIGN for word in instruction.words)


def _kind(tokens: list[str], found: frozenset[str], rest: str) -> tuple[str, str]:
    """Kind and product of a task, from the first verb or question word that stands where a request can begin."""
    asks = "?" in tokens
    fallback = None
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else "."
        if asks and _opens_question(tokens, place, before):
            return _question_kind(tokens, place, rest), ""
        verb = VERBS.get(" ".join(tokens[place : place + 2])) or VERBS.get(token)
        wish = before == "to" and place > 1 and tokens[place - 2] in _NEEDS
        if verb and (wish or before in _BOUNDARY or before in _LEAD_INS):
            kind = _verb_kind(verb, token, tokens[place + 1 :], found, rest)
            reported = wish and place > 2 and tokens[place - 3] in ("i", "we")
            if not reported and (rest or token not in _PRELUDES):
                return kind
            fallback = fallback or kind
    if fallback or asks:
        return fallback or (_question_kind(tokens, 0, rest), "")
    product = _product(tokens, found)
    return (_PRODUCTS.get(product, "other"), product)


def _opens_question(tokens: list[str], place: int, before: str) -> bool:
    token, after = tokens[place], tokens[place + 1 : place + 2]
    if before not in _BOUNDARY and before != ",":
        return False
    if token in ("in", "at", "to", "on", "for", "under", "by", "from", "with"):
        return bool(after) and after[0] in ("which", "what", "whom", "how")
    return token in QUESTION_WORDS and not (token in ("can", "could", "will", "would") and after == ["you"])


_PRELUDES = frozenset(("choose", "pick", "select", "consider"))


def _question_kind(tokens: list[str], place: int, rest: str) -> str:
    """Kind of a question that begins at `place`; what stands before it may be the statement of a sum."""
    end = tokens.index("?", place) if "?" in tokens[place:] else len(tokens)
    asked = " ".join(tokens[place:])
    quantities = sum(token in _QUANTITIES or token[0].isdigit() for token in tokens[:end])
    figures = any(token[0].isdigit() for token in tokens[:end]) or not _QUANTITIES.isdisjoint(tokens[place:end])
    if _HOW_MANY.match(asked) and (figures or rest):
        return "math"
    if place and quantities > 1 and PERSONAL.isdisjoint(tokens):
        return "math"
    if _CHOICE_GIVEN.search(asked) or (rest and asked.startswith("who ")):
        return "classify"
    return "compare" if _CONTRAST.search(asked) else "question"


_HOW_MANY = re.compile(
    r"(?:in |by )?how (?:many|much|long|far|fast|old|high)\b|what (?:share|percentage|fraction)\b"
    r"|what is the (?:probability|area|volume|average|largest|smallest)\b"
)
_QUANTITIES = frozenset(load("reading")["quantities"])
PERSONAL = frozenset(("i", "me", "my", "you", "your", "i'm", "i’m"))
_CHOICE_GIVEN = re.compile(r"\b(?:multiple choice|yes or no|true or false|you can answer|select a)\b")
_CONTRAST = re.compile(
    r"\bdifferences? between\b|\bcompared?\b|\bversus\b|\bvs\b|\bcompare with\b|\bresemble each other\b"
)


def _product(tokens: list[str], found: frozenset[str]) -> str:
    """The first noun of a sentence that names something to be made; software's needs words of that kind around it."""
    for place, token in enumerate(tokens):
        if token in (".", "?", "!"):
            return ""
        kind = _PRODUCTS.get(token)
        before = tokens[place - 1] if place else ""
        if token == "words" and before.isdigit():
            continue
        if token == "word" and tokens[place + 1 : place + 2] == ["problem"]:
            return "question"
        vague = token in ("class", "method", "app", "query", "module", "expression")
        if kind == "code" and vague and before != "regular" and not found & CODE_WORDS:
            continue
        if kind:
            if token == "program" and before not in _OTHER_PROGRAMS:
                return "function"
            if token == "script" and found & CODE_WORDS:
                return "function"
            return token
    return ""


def _verb_kind(verb: str, token: str, after: list[str], found: frozenset[str], rest: str) -> tuple[str, str]:
    has_code = bool(found & CODE_WORDS) or bool(CODE.search(rest))
    if token == "differentiate" and after[:1] == ["between"]:
        return "compare", ""
    if verb == "make" or verb == "code":
        product = _product(after[:14], found)
        kind = "code" if verb == "code" else _PRODUCTS.get(product, "code" if found & CODE_WORDS else "other")
        return kind, product
    if verb == "ask":
        return _ask_kind(token, after, found, has_code)
    if verb in ("extract", "edit") and has_code and token not in ("find", "count"):
        return "code", "code"
    if token in ("find", "count", "convert", "converting"):
        return (verb if rest else "math" if found & _MATH_WORDS or found & _DIGITS else "question"), ""
    if verb == "summarize" and not rest and ":" not in after:
        return "explain", ""
    if token in ("reply", "respond") or (after[:1] == ["down"] and found & _LETTERS):
        return "letter", ""
    if verb == "continue" and has_code:
        return "code", "code"
    if verb == "compare" and "yes" in found:
        return "classify", ""
    product = _product(after[:14], found)
    if verb == "explain" and _PRODUCTS.get(product) == "plan" and token == "outline":
        return "plan", product
    return verb, product if verb == "plan" else ""


def _ask_kind(token: str, after: list[str], found: frozenset[str], has_code: bool) -> tuple[str, str]:
    """Kind of a request that opens with "give", "tell", "suggest" and the like."""
    near = after[:9]
    if token == "answer":
        return ("math" if found & _MATH_NAMES else "classify" if "multiple" in found else "question"), ""
    if token in ("output", "return"):
        return "extract", ""
    if token == "tell" and ("if" in near[:3] or "whether" in near[:3]):
        return "classify", ""
    if {"why", "how", "what"} & set(near[:3]) or (token == "tell" and "about" in near[:3]):
        return "explain", ""
    product = _product(near, found)
    if token in _PROPOSING and not (near and near[0] in ("a", "an", "the", "one")):
        return "list", product
    kind = _PRODUCTS.get(product, "other")
    return ("code" if has_code and kind == "term" else kind), product


_PROPOSING = frozenset(("suggest", "recommend", "name", "share", "propose"))
_MATH_NAMES = frozenset(("math", "maths", "mathematical", "equation", "equations", "calculation", "calculations"))
_MATH_WORDS = frozenset(load("reading")["math_words"])
_DIGITS = frozenset(str(number) for number in range(1000))
_LETTERS = frozenset(("email", "e-mail", "letter", "message", "invitation", "mail"))
