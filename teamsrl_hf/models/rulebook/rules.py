"""The embedded default: prompts go in, rewrites, verdicts and drafts come out, by rules alone: no model, no network.

An operation that does not fit a text leaves it unchanged, so what an operation gains depends on the instruction and on
what was done to it before.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple

from ...text.plans import pack_key, write_rows
from ...text.tokens import CONTROL_TOKEN
from ...types import TaskKind
from ..base import Completion, Request, Task
from . import words as words

Choose = Callable[[Sequence], object]


@dataclass(frozen=True)
class Rulebook:
    """A `Generator` that answers by rules.

    It answers the task of a request and reads no prompt. A rewrite gets the rewritten instruction, a pack marked rows,
    each with its draft, a review "Equal" or "Different", an answer a draft. It cannot judge answers. The same request
    always gets the same answer; a further sample (`sample_index`) or another sampling seed gets other choices. Token
    counts are word counts; `max_tokens` never cuts an answer.
    """

    seed: int = 0

    model = "rulebook"
    immediate = True
    deterministic = True

    async def __call__(self, request: Request) -> Completion:
        if request.task is None:
            return self._refused("reads no prompts: give the request a task, or name a model that reads its messages.")
        if request.task.kind == TaskKind.JUDGE:
            return self._refused("cannot judge answers: name a model for it.")
        text = answer(request.task, self.seed + request.sample_index + (request.sampling.seed or 0))
        prompt_tokens = sum(len(message["content"].split()) for message in request.messages)
        return Completion(text, self.model, prompt_tokens=prompt_tokens, completion_tokens=len(text.split()))

    def _refused(self, why: str) -> Completion:
        return Completion("", self.model, error=f"The rulebook {why}", request_refused=True)


def answer(task: Task, seed: int = 0) -> str:
    """The answer to a rewrite, pack, review or answer; see `Rulebook`."""
    if task.kind == TaskKind.REVIEW:
        return "Equal" if same_request(*task.texts) else "Different"
    if task.kind == TaskKind.ANSWER:
        return draft(task.texts[0])
    texts = [_carry_out(plan, text, seed) for plan, text in zip(task.plans, task.texts, strict=True)]
    if task.kind == TaskKind.REWRITE:
        return texts[0]
    return write_rows([(text, draft(text)) for text in texts], pack_key(list(zip(task.texts, task.plans))))


def _carry_out(plan: Sequence[str], text: str, seed: int) -> str:
    """The operations named in `plan` one after the other, each on what the one before made."""
    for name in plan:
        text = rewrite(name, text, seed)
    return text


@lru_cache(maxsize=10_000)
def rewrite(name: str, text: str, seed: int = 0) -> str:
    """Carry out the operation `name` on `text`; `text` itself when the operation does not fit it or is unknown.

    Args:
        name: One of the six default operations.
        text: An instruction, optionally followed by a blank line and the material it works on.
        seed: Other seeds make other choices; whether the operation fits hardly depends on it.

    >>> rewrite("complicate_input", "Why is the sky blue?")
    'Why is the sky blue?'
    """
    operation = _OPERATIONS.get(name)
    if operation is None:
        return text
    task = _read(text)
    if not _is_english(task):
        return text
    return operation(task, _chooser(seed, name, text)) or text


def same_request(first: str, second: str) -> bool:
    """Whether two texts have the same content words, in whatever order, case, spacing and punctuation.

    >>> same_request("Please explain the tides.", "Explain tides")
    True
    """
    return _content(first) == _content(second)


@lru_cache(maxsize=10_000)
def _content(text: str) -> list[str]:
    found = _WORD.findall(text.lower())
    return sorted(word for word in found if word not in _FILLERS) or sorted(found) or [text.strip()]


def _bank(text: str) -> tuple[str, ...]:
    """The entries of a word bank."""
    return tuple(" ".join(part.split()) for part in text.split(";") if part.strip())


def _lines(text: str) -> dict[str, tuple[str, ...]]:
    """A bank with one `key: entries` per line."""
    pairs = (line.split(":", 1) for line in text.strip().splitlines())
    return {key.strip(): _bank(entries) for key, entries in pairs}


def _chooser(seed: int, name: str, text: str) -> Choose:
    """A function that picks from a sequence; its picks are decided by seed, operation and text alone."""
    digest = hashlib.blake2b(f"{seed}\0{name}\0{text}".encode("utf-8", "surrogatepass"), digest_size=64).digest()
    number = int.from_bytes(digest, "big")

    def choose(options: Sequence):
        nonlocal number
        number, index = divmod(number, len(options))
        return options[index]

    return choose


# Sentences.

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(\w])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|etc|e\.g|i\.e|U\.S|No|Inc|Jr|Sr|Gov|Gen|Sen|hr|min|approx)|\b[A-Z]|\.)\.$"
)


def _sentences(text: str) -> list[str]:
    """The sentences of a text; an abbreviation does not end one."""
    parts: list[str] = []
    start = 0
    for found in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[start : found.start()]):
            parts.append(text[start : found.end()].rstrip())
            start = found.end()
    return [*parts, text[start:]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Wordings of what the operations add.

_SLOT = re.compile(r"\{(\w+)\}")
_SLOTS = {slot: _bank(bank) for slot, bank in words.SLOTS.items()}


def _fill(template: str, choose: Choose) -> str:
    """The template with every slot filled."""
    return _SLOT.sub(lambda slot: choose(_SLOTS[slot[1]]), template)


class _Wordings(NamedTuple):
    """Wordings of one kind of addition, and what shows that a text has it: a pattern, or a fixed part of a wording."""

    shown: re.Pattern
    templates: tuple[str, ...]
    fixed: tuple[str, ...]

    def carried_by(self, text: str) -> bool:
        return bool(self.shown.search(text)) or any(part in text for part in self.fixed)


def _wordings(shown: str, bank: str) -> _Wordings:
    templates = _bank(bank)
    return _Wordings(re.compile(shown, re.I | re.S), templates, tuple(map(_fixed_part, templates)))


def _fixed_part(template: str) -> str:
    """The longest part of a template between its slots."""
    return max(_SLOT.split(template)[::2], key=len).strip()


_CONSTRAINT_KINDS = {kind: _bank(names) for kind, names in words.CONSTRAINT_KINDS.items()}
_CONSTRAINTS = {name: _wordings(*entry) for name, entry in words.CONSTRAINTS.items()}
_FOLLOW_UPS = {name: _wordings(shown, sentences) for name, (shown, _, sentences) in words.FOLLOW_UPS.items()}
_FOLLOW_TAILS = {name: _wordings(shown, tails) for name, (shown, tails, _) in words.FOLLOW_UPS.items()}
_STEPWISE = (
    r"\bstep[- ]by[- ]step\b|\bsteps?\b|\bfirst\b.*\bthen\b|\bintermediate\b|\breasoning\b"
    r"|\bcalculations?\b|\bone by one\b|\bin turn\b"
    r"|\bshow (?:your|the|all) (?:work|working)|\bbefore (?:deciding|you)\b|\bone after another\b"
    r"|\bonly then\b|\breason from\b"
)
_REASONING = {kind: _wordings(_STEPWISE, bank) for kind, bank in words.REASONING.items()}
_INPUT_NOTES = {name: _bank(bank) for name, bank in words.INPUT_NOTES.items()}


def _own_openings() -> dict[str, list[str]]:
    """Fixed parts of all added sentences, by the first word of the sentence; short ones could be anybody's."""
    banks = [bank.templates for bank in (*_CONSTRAINTS.values(), *_FOLLOW_UPS.values(), *_REASONING.values())]
    openings: dict[str, list[str]] = {}
    for template in chain(*banks, *_INPUT_NOTES.values()):
        if len(_fixed_part(template)) > 11:
            openings.setdefault(template.split()[0], []).append(_fixed_part(template))
    return openings


_OWN_OPENINGS = _own_openings()


def _own_spans(head: str) -> list[tuple[int, int]]:
    """Start and end of every sentence that the rulebook added: these say nothing about the subject."""
    starts = [0, *(found.end() for found in _SENTENCE_END.finditer(head)), len(head)]
    return [
        (start, end)
        for start, end in pairwise(starts)
        if any(part in head[start:end] for part in _OWN_OPENINGS.get(head[start:end].split(" ", 1)[0], ()))
    ]


# Reading a text: where the instruction ends, what kind of task it is.


@dataclass(frozen=True, slots=True)
class _Task:
    """A text, read.

    Attributes:
        head: The instruction, up to the first blank line.
        rest: The blank line and the material after it, character by character; empty when there is none.
        asked: `head` in lower case, without the sentences that the rulebook itself has added.
        words: Words of `asked`, in order.
        size: Number of words in `head`.
        kind: Key of `CONSTRAINT_KINDS`.
        product: The noun that names what is to be made ("poem"), or "".
    """

    head: str
    rest: str
    asked: str
    words: list[str]
    size: int
    kind: str
    product: str


_WORD = re.compile(r"[^\W_]+(?:['’.,+#-](?=[^\W_])[^\W_]+)*(?:\+\+|#)?")
_TOKEN = re.compile(r"[a-z][\w'’-]*|\d+|[.,:;!?\n]|[-–—](?=\s)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_BOUNDARY = frozenset((".", "!", "?", ":", ";", "\n", "-", "–", "—"))
_LEAD_INS = frozenset(
    ("please", "you", "then", "and", ",", "me", "also", "must", "should", "just", "now", "kindly", "or")
)
_NEEDS = frozenset(("need", "want", "have", "like", "ask", "asked", "required", "try", "is", "me", "how"))

_QUESTION_WORDS = frozenset(_bank(words.QUESTION_WORDS))
_VERBS = {verb: kind for kind, bank in words.VERBS.items() for verb in _bank(bank)}
_PRODUCTS = {noun: kind for kind, bank in words.PRODUCTS.items() for noun in _bank(bank)}
_CODE_WORDS = frozenset(_bank(words.CODE_WORDS))
_OTHER_PROGRAMS = frozenset(_bank(words.OTHER_PROGRAMS))
_ENGLISH = frozenset(_bank(words.ENGLISH)) | _VERBS.keys()
_FOREIGN = frozenset(_bank(words.FOREIGN))
_STOP_WORDS = frozenset(_bank(words.STOP_WORDS))
_FILLERS = frozenset(("a", "an", "the", "please", "kindly", "of", "is", "are"))
_CODE = re.compile(
    r"```|^\s*(?:def |class \w+[(:]|import \w|from \w+ import|function \w*\(|#include|public |SELECT "
    r"|const |let |var |return\b)"
    r"|;\s*$|</[a-z]+\d?>|<!DOCTYPE",
    re.M,
)


@lru_cache(maxsize=10_000)
def _read(text: str) -> _Task:
    gap = _BLANK_LINE.search(text)
    head, rest = (text[: gap.start()], text[gap.start() :]) if gap else (text, "")
    if not rest.strip():
        head, rest = text.rstrip(), ""
    asked = head
    for start, end in reversed(_own_spans(head)):
        asked = asked[:start] + asked[end:]
    asked = asked.lower()
    found = _WORD.findall(asked)
    kind, product = _kind(_TOKEN.findall(asked), frozenset(found), rest)
    return _Task(head, rest, asked, found, len(head.split()), kind, product)


def _is_english(task: _Task) -> bool:
    """Whether the instruction has words enough, and more English function words than foreign ones."""
    if len(task.words) < 2 or not task.head.strip():
        return False
    letters = sum(map(str.isalpha, task.head))
    ascii_letters = sum(map(str.isalpha, task.head.encode("ascii", "ignore").decode()))
    english = sum(word in _ENGLISH for word in task.words)
    return ascii_letters >= 0.85 * letters and english > sum(word in _FOREIGN for word in task.words)


def _kind(tokens: list[str], found: frozenset[str], rest: str) -> tuple[str, str]:
    """Kind and product of a task, from the first verb or question word that stands where a request can begin."""
    asks = "?" in tokens
    fallback = None
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else "."
        if asks and _opens_question(tokens, place, before):
            return _question_kind(tokens, place, rest), ""
        verb = _VERBS.get(" ".join(tokens[place : place + 2])) or _VERBS.get(token)
        wish = before == "to" and place > 1 and tokens[place - 2] in _NEEDS
        if verb and (wish or before in _BOUNDARY or before in _LEAD_INS):
            kind = _verb_kind(verb, token, tokens[place + 1 :], found, rest)
            told = wish and place > 2 and tokens[place - 3] in ("i", "we")
            if not told and (rest or token not in _PRELUDES):
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
    return token in _QUESTION_WORDS and not (token in ("can", "could", "will", "would") and after == ["you"])


_PRELUDES = frozenset(("choose", "pick", "select", "consider"))


def _question_kind(tokens: list[str], place: int, rest: str) -> str:
    """Kind of a question that begins at `place`; what stands before it may be the statement of a sum."""
    end = tokens.index("?", place) if "?" in tokens[place:] else len(tokens)
    asked = " ".join(tokens[place:])
    quantities = sum(token in _QUANTITIES or token[0].isdigit() for token in tokens[:end])
    figures = any(token[0].isdigit() for token in tokens[:end]) or not _QUANTITIES.isdisjoint(tokens[place:end])
    if _HOW_MANY.match(asked) and (figures or rest):
        return "math"
    if place and quantities > 1 and _PERSONAL.isdisjoint(tokens):
        return "math"
    if _CHOICE_GIVEN.search(asked) or (rest and asked.startswith("who ")):
        return "classify"
    return "compare" if _CONTRAST.search(asked) else "question"


_HOW_MANY = re.compile(
    r"(?:in |by )?how (?:many|much|long|far|fast|old|high)\b|what (?:share|percentage|fraction)\b"
    r"|what is the (?:probability|area|volume|average|largest|smallest)\b"
)
_QUANTITIES = frozenset(_bank(words.QUANTITIES))
_PERSONAL = frozenset(("i", "me", "my", "you", "your", "i'm", "i’m"))
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
        if kind == "code" and vague and before != "regular" and not found & _CODE_WORDS:
            continue
        if kind:
            if token == "program" and before not in _OTHER_PROGRAMS:
                return "function"
            if token == "script" and found & _CODE_WORDS:
                return "function"
            return token
    return ""


def _verb_kind(verb: str, token: str, after: list[str], found: frozenset[str], rest: str) -> tuple[str, str]:
    has_code = bool(found & _CODE_WORDS) or bool(_CODE.search(rest))
    if token == "differentiate" and after[:1] == ["between"]:
        return "compare", ""
    if verb == "make" or verb == "code":
        product = _product(after[:14], found)
        kind = "code" if verb == "code" else _PRODUCTS.get(product, "code" if found & _CODE_WORDS else "other")
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
_MATH_WORDS = frozenset(_bank(words.MATH_WORDS))
_DIGITS = frozenset(str(number) for number in range(1000))
_LETTERS = frozenset(("email", "e-mail", "letter", "message", "invitation", "mail"))


# Joining a sentence to an instruction.

_INLINE = re.compile(
    r"(?P<lead>[^:\n]*\b(?:following|this|these|sentences?|text|paragraph|passage|phrase|questions?|words?"
    r"|numbers?|list|problem|"
    r"equation|statement|claim|code|into \w+|to \w+|is|are)[^:\n.?!]*)(?P<material>:\s+\S.*)",
    re.S,
)
_OPEN_END = re.compile(
    r"(?:^|\s)(?:with|by|of|for|from|to|in|on|at|as|are|is|be|and|or|includes?|including|contains?"
    r"|containing|using|between|"
    r"following|below|these|this|that|about|into)$",
    re.I,
)
_LIST_LINE = re.compile(r"\s*(?:[-*•]|\d+[.)]|[A-Za-z ]{1,20}:\s*$)")


def _add(task: _Task, sentence: str) -> str:
    """The text with one more sentence in its instruction; what the instruction introduces stays next to it."""
    return _join(task, sentence) + task.rest


def _join(task: _Task, sentence: str) -> str:
    head = task.head.rstrip()
    inline = None if task.rest else _INLINE.fullmatch(head)
    if inline:
        return _weave(inline["lead"], sentence) + inline["material"]
    first, newline, others = head.partition("\n")
    if newline and (first.rstrip().endswith(":") or any(_LIST_LINE.match(line) for line in others.split("\n"))):
        return _join_line(first.rstrip(), sentence, keep_colon=True) + newline + others
    return _join_line(head, sentence, keep_colon=False)


def _join_line(line: str, sentence: str, keep_colon: bool) -> str:
    if line.endswith(":"):
        lead = line[:-1].rstrip()
        if keep_colon or _OPEN_END.search(lead):
            return _weave(lead, sentence) + ":"
        return f"{lead}. {sentence}"
    return f"{_closed(line)} {sentence}"


def _weave(lead: str, sentence: str) -> str:
    """The sentence put before the clause that leads over to the material."""
    starts = [found.end() for found in _SENTENCE_END.finditer(lead)]
    start = starts[-1] if starts else 0
    return f"{lead[:start]}{sentence} {_capital(lead[start:])}"


def _closed(line: str) -> str:
    """The line with a mark at its end."""
    line = line.rstrip(" ,;-–—")
    if line.rstrip("\"”’')*_").endswith((".", "!", "?", "…")):
        return line
    first = _TOKEN.match(line.lower())
    return line + ("?" if first and first[0] in _QUESTION_WORDS else ".")


_BLUNT = re.compile(
    r"\bdirectly\b|\bonly (?:output|the)\b|\boutput only\b|\b(?:just|only) (?:output|give|the)\b|\b(?:one"
    r"|single)[- ]word\b"
    r"|\bfinal answer\b",
    re.I,
)
_LONGEST = 130  # Words; a longer instruction would no longer be clear after one more sentence.


# Operation 1, breadth.


class _Field(NamedTuple):
    words: frozenset[str]
    topics: tuple[str, ...]
    frames: dict[str, tuple[str, ...]]
    contexts: tuple[str, ...]


def _field(entry: words.Field) -> _Field:
    common = (words.QUESTIONS, words.EXPLAINS, words.LISTS, words.PLANS)
    if entry.name in _bank(words.SELF_CONTAINED):
        common = ("", "", "", "")
    own = (entry.questions, entry.explains, entry.lists, entry.plans)
    frames = {
        **{
            shape: _bank(f"{bank};{more}")
            for shape, bank, more in zip(("question", "explain", "list", "plan"), own, common)
        },
        "compare": _bank(words.COMPARES),
        "compare?": _bank(words.COMPARE_QUESTIONS),
    }
    return _Field(frozenset(_bank(entry.words)), _bank(entry.topics), frames, _bank(entry.contexts))


def _bare(topic: str) -> str:
    """A topic in lower case without its article."""
    return re.sub(r"^(?:the|an?) ", "", topic.lower())


_FIELDS = tuple(_field(entry) for entry in words.FIELDS)


def _places(entries: Iterable[tuple[str, object]]) -> dict[str, list]:
    """All values of each key, in order."""
    places: dict[str, list] = {}
    for key, value in entries:
        places.setdefault(key, []).append(value)
    return places


def _longest_word(phrase: str) -> str:
    return max(_WORD.findall(phrase), key=len)


_FIELDS_OF_WORD = _places((word, index) for index, field in enumerate(_FIELDS) for word in field.words)
_TOPICS_OF_WORD = _places(
    (_longest_word(_bare(topic)), (_bare(topic), index))
    for index, field in enumerate(_FIELDS)
    for topic in field.topics
)
_ABOUT = {noun: lead.strip() for noun, lead in (entry.split(":", 1) for entry in _bank(words.ABOUT))}
_TAILS = _bank(words.TAILS)
_PRODUCT_TAILS = _bank(words.PRODUCT_TAILS)
_WRITTEN = ("creative", "short", "letter", "write", "passage", "form")
_CODE_TASKS = _bank(words.CODE_TASKS)
_PROBLEMS = _bank(words.PROBLEMS)
_PROBLEM_LEADS = _bank(words.PROBLEM_LEADS)
_WEAK_WORDS = frozenset(_bank(words.WEAK_WORDS))
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


def _breadth(task: _Task, choose: Choose) -> str | None:
    if task.kind == "code":
        return _other_code(task, choose)
    if task.kind == "math":
        return _other_problem(choose)
    field = _find_field(task)
    if field is None:
        return None
    text = task.head.lower() + task.rest.lower()
    topics = [topic for topic in field.topics if _bare(topic) not in text]
    new = _same_shape(task, field, topics, choose)
    return new and _same_length(task, new, field, choose)


def _other_code(task: _Task, choose: Choose) -> str:
    named = _LANGUAGE.search(task.head)
    language = _LANGUAGE_NAMES.get(named[1].lower(), named[1].capitalize()) + " " if named else ""
    noun = next((noun for noun in ("function", "program", "script") if noun in task.words), "function")
    tasks = [entry for entry in _CODE_TASKS if entry not in task.head]
    return f"{_maker(task)} a {language}{noun} that {choose(tasks)}."


def _other_problem(choose: Choose) -> str:
    numbers = {"a": choose(range(3, 7)), "b": choose(range(12, 41)), "c": choose(range(120, 301, 12))}
    problem = choose(_PROBLEMS)
    lead = "" if problem.startswith(("Solve", "Find", "Differentiate")) else choose(_PROBLEM_LEADS) + " "
    return lead + problem.format(**numbers)


def _maker(task: _Task) -> str:
    first = task.words[0].capitalize()
    return first if first in _MAKERS else "Write"


def _find_field(task: _Task) -> _Field | None:
    """The field most words of the instruction belong to; the material decides when the instruction says nothing."""
    scores = _scores([word for word in task.words if word != task.product], task.asked)
    if not scores and task.rest:
        lower = task.rest[:1500].lower()
        scores = {index: score for index, score in _scores(_WORD.findall(lower), lower).items() if score > 2}
    return _FIELDS[max(scores, key=scores.__getitem__)] if scores else None


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


def _same_shape(task: _Task, field: _Field, topics: list[str], choose: Choose) -> str | None:
    """A new instruction about one of `topics` in the shape of the old one, or None when its shape cannot be kept."""
    topic = choose(topics)
    if task.kind in _WRITTEN:
        return _same_product(task, field, topic)
    shape = {"analyze": "explain"}.get(task.kind, task.kind)
    if shape == "compare" and "?" in task.asked:
        shape = "compare?"
    frames = field.frames.get(shape)
    if not frames:
        return None
    if shape == "question":
        alike = [frame for frame in frames if frame.lower().startswith(task.words[0] + " ")]
        frames = alike if len(alike) > 2 else frames
    other = choose([entry for entry in topics if entry != topic])
    return choose(frames).format(t=topic, u=other, n=choose(_COUNTS))


_BOUND = re.compile(r"\b(?:of|for|to|given|following|cover|recommendation|reference|resignation|one-sentence)\b")


def _same_product(task: _Task, field: _Field, topic: str) -> str | None:
    """The same kind of text about another topic; None when its kind or its attributes belong to the old one."""
    lead = _ABOUT.get(task.product)
    named = lead and re.search(rf"\b(an?) ((?:[a-z-]+,? ){{0,3}}){task.product}\b", task.head)
    if not named or _BOUND.search(named[2]):
        return None
    attributes = [word for word in _WORD.findall(named[2]) if word in _FIELDS_OF_WORD]
    if not field.words.issuperset(attributes):
        return None
    return f"{_maker(task)} {named[0]} {lead} {topic}."


def _same_length(task: _Task, new: str, field: _Field, choose: Choose) -> str:
    """The new instruction, with sentences around it while it is much shorter than the old one."""
    wanted = 0 if task.kind == "short" else 0.75 * min(task.size, 50)
    written = task.kind in _WRITTEN
    if len(new.split()) < wanted and not written:
        new = f"{choose(field.contexts)} {new}"
    tails = list(_PRODUCT_TAILS if written else _TAILS)
    for _ in range(3):
        if len(new.split()) < wanted:
            new = f"{new} {tails.pop(tails.index(choose(tails)))}"
    return new


# Operation 2, add_constraints.

_QUERIES = frozenset(("sql", "regex", "regexp", "regular", "html", "css"))


def _add_constraints(task: _Task, choose: Choose) -> str | None:
    names = _CONSTRAINT_KINDS[_constraint_group(task)]
    carried = {name for name in names if _CONSTRAINTS[name].carried_by(task.head)}
    name = choose(names)
    if name in carried or len(carried) > 1 or task.size > _LONGEST or _BLUNT.search(task.head):
        return None
    return _add(task, _fill(choose(_CONSTRAINTS[name].templates), choose))


def _constraint_group(task: _Task) -> str:
    if task.kind == "code" and not _QUERIES.isdisjoint(task.words):
        return "query"
    return "reading" if task.rest and task.kind == "question" else task.kind


# Operation 3, deepen.

_INQUIRING = ("question", "explain", "compare", "analyze")
_SOCIAL_FIELDS = tuple(
    field for field, entry in zip(_FIELDS, words.FIELDS) if entry.name in _bank(words.SOCIAL_FIELDS)
)
_CHOICES = frozenset(_bank(words.CHOICES))


def _deepen(task: _Task, choose: Choose) -> str | None:
    if task.kind not in _INQUIRING or task.size > _LONGEST:
        return None
    asked = [
        name
        for name in _FOLLOW_UPS
        if _FOLLOW_UPS[name].carried_by(task.head) or _FOLLOW_TAILS[name].carried_by(task.head)
    ]
    left = [name for name in _follow_ups_for(task) if name not in asked]
    if len(asked) > 1 or not left:
        return None
    name = choose(left)
    last = _sentences(task.head.rstrip())[-1]
    if _takes_tail(last) and choose((True, True, False)):
        return f"{task.head.rstrip()[:-1]}, {_fill(choose(_FOLLOW_TAILS[name].templates), choose)}?{task.rest}"
    return _add(task, _fill(choose(_FOLLOW_UPS[name].templates), choose))


def _follow_ups_for(task: _Task) -> tuple[str, ...]:
    """Kinds of follow-up that make sense: of a matter of nature, say, one does not ask whom it affects."""
    choice = ("tradeoff",) if not _CHOICES.isdisjoint(task.words) else ()
    if task.rest:
        return ("basis",) if task.kind == "question" else ("cause", "consequence")
    if task.words[0] == "who":
        return ("role",)
    if _HOW_TO.search(task.asked):
        return ("obstacle", *choice)
    if not _PERSONAL.isdisjoint(task.words):
        return ("cause", "parts", *choice)
    social = ("affected", "change") if _find_field(task) in _SOCIAL_FIELDS else ()
    fact = (
        task.kind == "compare"
        or task.words[0] in ("when", "where", "which")
        or task.words[:3] == ["what", "is", "the"]
    )
    return ("cause", "consequence", *(() if fact else ("parts",)), *choice, *social)


_HOW_TO = re.compile(
    r"\bhow (?:(?:do|can|could|should|would) (?:i|we|you|one)|to)\b|\bwhat (?:can|should|could) (?:i|we|one)\b"
)


def _takes_tail(question: str) -> bool:
    """Whether a further question can be woven into this one."""
    opening = _TOKEN.match(question.lower())
    plain = not re.search(r"[,:;\n\"“]| and | or ", question)
    return bool(opening) and opening[0] in _QUESTION_WORDS and question.endswith("?") and plain


# Operation 4, concretize.

_SINGULARS = _lines(words.SINGULARS)
_PHRASES = _lines(words.PHRASES)
_ASKED = frozenset(_bank(words.ASKED))
_AFTER = frozenset(_bank(words.AFTER))
_BEFORE = frozenset(_bank(words.BEFORE))
_COMPOUNDS = frozenset(_bank(words.COMPOUNDS))
_SPAN = re.compile(r"[A-Za-zÀ-ÿ][\w'’-]*|\d+|[^\w\s]")
_COUNTED = frozenset(_bank(words.COUNTED))
_ADJECTIVES = frozenset(_bank(words.ADJECTIVES))
_NARROWING = frozenset(_bank(words.NARROWING))
_HELPERS = frozenset(("do", "does", "did", "can", "could", "should", "would", "will", "may", "might"))
_CHOICE = re.compile(r" of your (?:own )?(?:choice|choosing)\b")
_ENDS = ("", ".", ",", ";", ":", "!", "?", ")")


def _concretize(task: _Task, choose: Choose) -> str | None:
    if task.rest and len(task.rest.split()) <= 3:
        return None
    head = task.head
    own = _own_spans(head)
    for start, end, instances in _general_nouns(head):
        if any(first <= start < last for first, last in own):
            continue
        instance = choose(instances)
        if head[start].isupper():
            instance = _capital(instance)
        return f"{head[:start]}{instance}{head[end:]}{task.rest}"
    return None


def _general_nouns(head: str) -> Iterator[tuple[int, int, Sequence[str]]]:
    """Spans of general nouns that can be replaced, in order, each with the instances that fit there."""
    spans = [(found[0], found.start(), found.end()) for found in _SPAN.finditer(head)]
    tokens = [word for word, *_ in spans] + [""] * 8
    for place, (word, start, _) in enumerate(spans):
        article = word.lower() in ("a", "an")
        adjective = article and tokens[place + 1] in _ADJECTIVES
        for width in (3, 2, 1):
            last = place + width - (not article)
            if last >= len(spans):
                continue
            end = spans[last][2]
            phrase = head[spans[place + article][1] : end]
            instances = _SINGULARS.get(phrase) if article else _PHRASES.get(phrase.lower())
            if not instances and adjective and width > 1:
                phrase = head[spans[place + 2][1] : end]
                instances = _same_noun(_SINGULARS.get(phrase, ()), phrase, f"{word} {tokens[place + 1]}")
            if instances:
                chosen = _CHOICE.match(head, end)
                last, end = (last + 3, chosen.end()) if chosen else (last, end)
                fitting = _fitting(tokens, place, last, phrase, instances, article)
                if fitting:
                    yield start, end, fitting
                break


def _same_noun(instances: Sequence[str], noun: str, before: str = "") -> list[str]:
    """The instances that keep the noun itself ("a chemistry teacher"), with other words in front of them if given."""
    kept = [
        entry for entry in instances if entry.endswith(" " + noun) and _ADJECTIVES.isdisjoint(before and entry.split())
    ]
    return [f"{before} {instance.split(' ', 1)[1]}" for instance in kept] if before else kept


def _fitting(
    tokens: list[str], place: int, last: int, noun: str, instances: Sequence[str], article: bool
) -> Sequence[str]:
    """The instances that can stand at `place`: none when the noun is asked for, predicated, or starts a compound."""
    earlier = [word.lower() for word in tokens[:place]]
    before, further = ([*reversed(earlier), "", ""])[:2]
    after = tokens[last + 1].lower()
    sentence = _sentence_words(earlier)
    determined = article or noun.split()[0].lower() in ("my", "the", "our", "your")
    if "given" in earlier or before in _ASKED or sentence[:1] in (["is"], ["are"], ["was"], ["were"]):
        return ()
    if (before == "as" and len(sentence) > 1) or (sentence and noun[0].isupper()):
        return ()
    if before == "of" and (further in _COUNTED or " and " in instances[0]):
        return ()
    if not determined and before not in _BEFORE and not (not sentence and after in _AFTER):
        return ()
    if after in _ENDS or after in _AFTER:
        return instances
    if before in _HELPERS and after.isalpha() and after not in _NARROWING:
        return () if after in _COMPOUNDS else instances
    return _same_noun(instances, noun) if after in _NARROWING and noun[:4] != "the " else ()


def _sentence_words(earlier: list[str]) -> list[str]:
    """The words since the last sentence ended."""
    ends = [place for place, word in enumerate(earlier) if word in (".", "!", "?")]
    return earlier[ends[-1] + 1 :] if ends else earlier


# Operation 5, increase_reasoning.

_FAULT = re.compile(r"\b(?:debug|fix|bugs?|errors?|faults?|fails?|crash\w*|wrong|exception)\b", re.I)


def _increase_reasoning(task: _Task, choose: Choose) -> str | None:
    kind = "debug" if task.kind == "code" and _FAULT.search(task.head) else task.kind
    wordings = _REASONING.get(kind)
    if wordings is None or task.size > _LONGEST or wordings.carried_by(task.head) or _BLUNT.search(task.head):
        return None
    return _add(task, _fill(choose(wordings.templates), choose))


# Operation 6, complicate_input.

_PAIR = re.compile(r"[-*•]?\s*([^\W\d_][^:\n]{0,40}?)\s?:(?!//)\s*(.*)")
_BULLET = re.compile(r"^[-*•–]\s+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_TABULAR = re.compile(r"^.*(?:\||\t).*\n.*(?:\||\t)|^\[\d+\]|<[a-zA-Z!/][^<>]*>|^\(?\d+\).*\(?\d+\)", re.M)


def _complicate_input(task: _Task, choose: Choose) -> str | None:
    gap = _BLANK_LINE.match(task.rest)
    material = task.rest[gap.end() :].strip("\n") if gap else ""
    if not material.strip() or _is_structured(material):
        return None
    form, unit, data = _structure(material, choose)
    if form is None:
        return None
    note = choose(_INPUT_NOTES[form]).replace("{unit}", unit).replace("{input}", choose(_SLOTS["input"]))
    return f"{_join(task, note)}\n\n{data}"


def _is_structured(material: str) -> bool:
    if _CODE.search(material) or _TABULAR.search(material):
        return True
    inside = material.strip()
    if inside[0] in "[{" and inside[-1] in "]}" and ('"' in inside or ":" in inside):
        return True
    commas = [line.count(",") for line in inside.splitlines()]
    return len(commas) > 1 and commas[0] > 0 and len(set(commas)) == 1 and not re.search(r"[.!?]$", inside, re.M)


def _structure(material: str, choose: Choose) -> tuple[str | None, str, str]:
    """Form (key of `INPUT_NOTES`, or None when there is nothing to structure), what one record holds, and the data."""
    lines = [line.strip() for line in material.splitlines() if line.strip()]
    fields = _fields(lines)
    if fields is not None:
        return _render_fields(fields, choose)
    unit, items = _items(lines)
    if len(items) < 2:
        alone = json.dumps({"id": 1, "text": items[0]}, ensure_ascii=False) if len(lines[0].split()) >= 12 else ""
        return ("text" if alone else None), "text", alone
    forms = ("json", "json", "log", "table") if unit in ("sentence", "line") else ("json", "table", "csv")
    if any("|" in item for item in items):
        forms = ("json",)
    form = choose(forms)
    return form, unit, _RENDER[form](unit, items)


def _fields(lines: list[str]) -> list[tuple[str, str]] | None:
    """Pairs of key and value, if the lines are such pairs; bullets under a key become its value, one per line."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        found = _PAIR.fullmatch(line)
        if found and len(found[1].split()) <= 6 and not (_BULLET.match(line) and pairs and not pairs[0][1]):
            pairs.append((found[1], found[2]))
        elif pairs and _BULLET.match(line):
            key, value = pairs[-1]
            pairs[-1] = key, f"{value}\n{_BULLET.sub('', line)}".strip("\n")
        else:
            return None
    long_enough = len(pairs) > 1 or (pairs and len(_list_of(pairs[0][1])) > 1)
    return pairs if long_enough else None


def _render_fields(pairs: list[tuple[str, str]], choose: Choose) -> tuple[str, str, str]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        turns = [{"turn": number, "from": key, "text": value} for number, (key, value) in enumerate(pairs, 1)]
        return "turns", "turn", _json_array(turns)
    plain = all(value and "\n" not in value and "|" not in value for _, value in pairs)
    if plain and choose((False, False, True)):
        return (
            "fields",
            "field",
            "\n".join(["| field | value |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in pairs)]),
        )
    record = {key: _list_of(value) if len(_list_of(value)) > 1 else _value(value) for key, value in pairs}
    members = ",\n".join(
        f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in record.items()
    )
    return "object", "field", "{\n" + members + "\n}"


def _list_of(value: str) -> list:
    """The entries of a value that is a list, else the value alone."""
    if "\n" in value:
        return [_value(part) for part in value.split("\n")]
    inside = value.strip()
    bare = inside[1:-1] if inside[:1] + inside[-1:] in ("[]", "{}", "()") else inside
    parts = [part.strip() for part in bare.split(",")]
    short = len(parts) > 2 and all(part and len(part.split()) <= 3 for part in parts)
    return [_value(part) for part in parts] if short else [value]


def _value(text: str):
    """A number if the text is one that prints the same again, else the text."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text and str(float(text)) == text else int(text) if "." not in text else text


def _items(lines: list[str]) -> tuple[str, list[str]]:
    """What the material consists of ("item", "line", "sentence") and its parts."""
    if len(lines) > 1:
        items = [_BULLET.sub("", line) for line in lines]
        return ("item" if all(len(item.split()) <= 6 for item in items) else "line"), items
    entries = _list_of(lines[0].rstrip("."))
    if len(entries) > 1:
        return "item", [str(entry) for entry in entries]
    sentences = _sentences(lines[0])
    return "sentence", sentences


def _json_array(records: list[dict]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(record, ensure_ascii=False) for record in records) + "\n]"


def _render_json(unit: str, items: list[str]) -> str:
    return _json_array(
        [{"id": number, unit: _value(item) if unit == "item" else item} for number, item in enumerate(items, 1)]
    )


def _render_table(unit: str, items: list[str]) -> str:
    rows = [f"| {number} | {item} |" for number, item in enumerate(items, 1)]
    return "\n".join([f"| id | {unit} |", "| --- | --- |", *rows])


def _render_csv(unit: str, items: list[str]) -> str:
    quoted = ['"' + item.replace('"', '""') + '"' if re.search('[,"]', item) else item for item in items]
    return "\n".join([f"id,{unit}", *(f"{number},{item}" for number, item in enumerate(quoted, 1))])


def _render_log(unit: str, items: list[str]) -> str:
    return "\n".join(f"[{number:03d}] {item}" for number, item in enumerate(items, 1))


_RENDER = {"json": _render_json, "table": _render_table, "csv": _render_csv, "log": _render_log}

_OPERATIONS = {
    "breadth": _breadth,
    "add_constraints": _add_constraints,
    "deepen": _deepen,
    "concretize": _concretize,
    "increase_reasoning": _increase_reasoning,
    "complicate_input": _complicate_input,
}


# Drafts.

_MARKERS = re.compile(
    rf"{CONTROL_TOKEN.pattern}|\[(?:instruction|answer|item|first|second|end)(?: \d+)? [0-9a-f]{{12}}\]|```\w*"
)
_TERM = re.compile(_WORD.pattern + r"|[^\w\s]")
_APOLOGY = re.compile(r"\bsorry\b|\bapolog", re.I)
_SKELETONS = {kind: _bank(bank) for kind, bank in words.SKELETONS.items()}


def draft(text: str) -> str:
    """A plain structured draft of an answer to `text`, made of its own terms; it says itself that rules made it.

    It restates the request, its requirements and its material, and gives a skeleton for the kind of answer asked for.
    """
    task = _read(_MARKERS.sub(" ", text).strip())
    terms = _key_terms(task)
    sentences = [
        sentence.strip() for sentence in _sentences(" ".join(task.head.split())) if not _APOLOGY.search(sentence)
    ]
    request, *demands = sentences or [", ".join(terms)]
    parts = [
        f"Draft made by rules, to be filled in. The request: {_shorten(request, 40)}",
        "Key terms: " + ", ".join(terms) + ".",
        _bullets("It also asks for this:", [_shorten(demand, 30) for demand in demands[:6]]),
        _bullets("Material to use:", [_shorten(_BULLET.sub("", fact), 25) for fact in _facts(task)]),
        _code_skeleton(task, terms) if task.kind == "code" else _skeleton(task, terms),
    ]
    return "\n\n".join(part for part in parts if part)


def _key_terms(task: _Task) -> list[str]:
    """Up to ten terms, each a run of at most three content words, in order of appearance; the material's come last."""
    terms: dict[str, str] = {}
    run: list[str] = []
    for word in [*_TERM.findall(task.head), ".", *_TERM.findall(task.rest[:2000]), "."]:
        plain = word.lower()
        if _WORD.match(word) and plain not in _STOP_WORDS and plain not in _VERBS and not _APOLOGY.search(word):
            run.append(word)
        if run and (run[-1] != word or len(run) == 3):
            terms.setdefault(" ".join(run).lower(), " ".join(run))
            run = []
    return list(terms.values())[:10] or ["the request as it stands"]


def _shorten(text: str, limit: int) -> str:
    """At most `limit` words, closed by a mark."""
    found = text.split()
    return " ".join(found[:limit]) + " ..." if len(found) > limit else _closed(" ".join(found).rstrip(":"))


def _bullets(title: str, entries: list[str]) -> str:
    return "\n".join([title, *(f"- {entry}" for entry in entries)]) if entries else ""


def _facts(task: _Task) -> list[str]:
    lines = [line.strip() for line in task.rest.splitlines() if line.strip()]
    facts = _sentences(lines[0]) if len(lines) == 1 else lines
    return [fact for fact in facts if not _APOLOGY.search(fact) and _WORD.search(fact)][:4]


def _skeleton(task: _Task, terms: list[str]) -> str:
    """The title and numbered lines that fit the kind of task, filled with its terms in turn."""
    title, *lines = _SKELETONS.get(task.kind, _SKELETONS["other"])
    filled = [line.format(term=f'"{terms[place % len(terms)]}"') for place, line in enumerate(lines)]
    return "\n".join([title, *(f"{number}. {_capital(line)}" for number, line in enumerate(filled, 1))])


def _code_skeleton(task: _Task, terms: list[str]) -> str:
    """A function of the right name in a fence, with comments where its body would stand."""
    plain = [
        word for word in re.findall(r"[a-z]+", " ".join(terms).lower()) if word not in _CODE_WORDS and word != "script"
    ]
    name = "_".join(plain[:4]) or "solve"
    steps = (
        "check the arguments",
        f"handle the plain case of {terms[0]}",
        f"handle the edge cases of {terms[-1]}",
        "return the result",
    )
    if re.search(r"\b(?:javascript|typescript|java|c\+\+|c#|rust|php)(?!\w)", task.asked):
        body = "\n".join(f"  // {number}. {step}" for number, step in enumerate(steps, 1))
        return f"A skeleton to complete:\n\n```\nfunction {name}(input) {{\n{body}\n}}\n```"
    body = "\n".join(f"    # {number}. {step}" for number, step in enumerate(steps, 1))
    return f"A skeleton to complete:\n\n```python\ndef {name}(value):\n{body}\n    raise NotImplementedError\n```"
