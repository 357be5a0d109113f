"""How verifiers read an answer: in go texts, out come counts of words and sentences, lines, list items and code.

What counts as a word or a sentence is debatable: is "well-known" one word, is "etc." an end? A `Count` holds the least
and the most that a reader could find, and a relation holds only if it does for both. So an answer that passes here
also passes a checker that counts in another sensible way.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """The least and the most that a reader could count."""

    least: int
    most: int

    def is_exactly(self, number: int) -> bool:
        """Whether every reader counts `number`."""
        return self.least == self.most == number


# The relations of IFEval, by its names.
RELATIONS: dict[str, Callable[[Count, int], bool]] = {
    "at least": lambda count, number: count.least >= number,
    "less than": lambda count, number: count.most < number,
}

_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n`]*)\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.M | re.S)
_INLINE_CODE = re.compile(r"(?<!`)(`++)[^\n]*?[^\n`]\1(?!`)")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")

# Possessive, and only at the beginning of a run of marks: a model may write thousands of dots.
_MARKS = r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+"
_ANY_END = re.compile(rf"{_MARKS}(?=\s|\Z)|[。！？]")
# A sure end: what follows looks like the beginning of a sentence.
_SURE_END = re.compile(rf"{_MARKS}(?=\s+[\"'“‘(\[*_]*[A-ZÀ-ÖØ-Þ0-9])|[。！？]")
_NO_END = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|sr|jr|vs|etc|e\.g|i\.e|cf|fig|no|vol|al|approx|inc|ltd|co|dept|est|gen|gov|sen|rep"
    r"|jan|feb|mar|apr|aug|sept?|oct|nov|dec|a\.m|p\.m|ph\.d)|(?<![\w.])\w(?:\.\w)*|^[ \t]*\d+)\.\Z",
    re.I | re.M,
)

_BULLET = re.compile(r"^[ \t]*[-*+][ \t]+(\S.*)$", re.M)
_NUMBERED = re.compile(r"^[ \t]*(\d{1,4})[.)][ \t]+(\S.*)$", re.M)
# IFEval takes any line that begins with a hyphen or one asterisk for a bullet.
_MAYBE_BULLET = re.compile(r"^[ \t]*(?:-|\+[ \t]|\*(?!\*)).*$", re.M)
# Lines of headings, tables, lists and rules, and lines that are bold from end to end, which are headings too.
_NO_PROSE = re.compile(
    r"[ \t]*(?:#{1,6}[ \t].*|\|.*|[-*+•][ \t].*|\d{1,4}[.)][ \t].*|\*\*[^*\n]+\*\*:?|[-*_ ]{3,})?[ \t]*\Z"
)


def without_code(text: str) -> str:
    """A text with its blocks and spans of code blanked out; lines stay where they are.

    >>> without_code("Use `a, b` here.")
    'Use   here.'
    """
    return _INLINE_CODE.sub(" ", _FENCED.sub(lambda block: "\n" * block[0].count("\n"), text))


def unbroken_code(text: str) -> str:
    """A text without the blank lines inside its blocks of code."""
    return _FENCED.sub(lambda block: re.sub(r"\n[ \t]*(?=\n)", "", block[0]), text)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of code that are not empty: the language in lower case, and the code."""
    return [(language.strip().lower(), code) for _, language, code in _FENCED.findall(text) if code.strip()]


def words(text: str) -> list[str]:
    """Parts between spaces that hold a letter or digit, without punctuation around them.

    >>> words('A well-known "fact" - it\\'s 3.5!')
    ['A', 'well-known', 'fact', "it's", '3.5']
    """
    return [_bare(part) for part in text.split() if any(map(str.isalnum, part))]


def _bare(part: str) -> str:
    inner = [place for place, character in enumerate(part) if character.isalnum()]
    return part[inner[0] : inner[-1] + 1]


def count_words(text: str) -> Count:
    """Parts between spaces at least; at most runs of letters and digits, and characters where a script has no spaces.

    >>> count_words("A well-known fact."), count_words("天空是蓝的")
    (Count(least=3, most=4), Count(least=1, most=5))
    """
    return Count(len(words(text)), len(re.findall(r"\w+", _CJK.sub(" ", text))) + len(_CJK.findall(text)))


def sentences(text: str) -> list[str]:
    """The parts between sure ends of sentences.

    >>> sentences("Dr. Li came, e.g. on Monday. Why? It rained...")
    ['Dr. Li came, e.g. on Monday.', 'Why?', 'It rained...']
    """
    parts, start = [], 0
    for end in _SURE_END.finditer(text):
        doubtful = end[0][0] == "." and _NO_END.search(text, max(start, end.start() - 20), end.start() + 1)
        if not doubtful and not end[0].startswith(("..", "…")):
            parts.append(text[start : end.end()])
            start = end.end()
    return [part.strip() for part in (*parts, text[start:]) if any(map(str.isalnum, part))]


def count_sentences(text: str) -> Count:
    """Sure ends at least; at most all marks that may end a sentence, and ends of lines.

    >>> count_sentences("It is 3.5 cm, i.e. small. Why?")
    Count(least=2, most=3)
    """
    parts = re.split(r"\n", _ANY_END.sub("\n", text))
    most = sum(any(map(str.isalnum, part)) for part in parts)
    least = len(sentences(text))
    return Count(min(least, most), most)


def lines(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """The parts between blank lines."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text.strip()) if part.strip()]


def is_prose(text: str) -> bool:
    """Whether any line of a text is a line of a paragraph, and of no heading, list or table.

    >>> is_prose("# Bread"), is_prose("- a\\n- b"), is_prose("We need:\\n- a")
    (False, False, True)
    """
    return any(not _NO_PROSE.match(line) for line in text.splitlines())


def is_all_prose(text: str) -> bool:
    """Whether each line of a text is, or is blank."""
    return not any(_NO_PROSE.match(line) for line in lines(text))


def bullets(text: str) -> list[str]:
    """The items of Markdown's bullet lists, outside code."""
    return [item.strip() for item in _BULLET.findall(without_code(text)) if any(map(str.isalnum, item))]


def count_bullets(text: str) -> Count:
    """Items of bullet lists; at most all lines that begin with a hyphen or an asterisk, rules and code included."""
    return Count(len(bullets(text)), len(_MAYBE_BULLET.findall(text)))


def numbered(text: str) -> list[tuple[int, str]]:
    """The items of numbered lists with their numbers, outside code."""
    return [(int(number), item.strip()) for number, item in _NUMBERED.findall(without_code(text))]


def count_phrase(text: str, phrase: str) -> Count:
    """Occurrences in any case: as whole words at least, also inside other words at most.

    >>> count_phrase("Art is an art; start!", "art")
    Count(least=2, most=3)
    """
    literal = re.escape(phrase)
    whole = len(re.findall(rf"(?<!\w){literal}(?!\w)", text, re.I))
    return Count(whole, len(re.findall(literal, text, re.I)))


def relation_holds(count: Count, relation: str, number: int) -> bool:
    """Whether "at least" or "less than" holds for every way of counting."""
    return RELATIONS[relation](count, number)


def final_text(answer: str) -> str:
    """The answer without the thoughts that a reasoning model writes before it.

    >>> final_text("<think>Short, then.</think> Yes."), final_text("<think>Hmm")
    ('Yes.', '')
    """
    text = answer.strip()
    before, end, after = text.partition("</think>")
    # Some templates put the first tag into the prompt. Tags that stand later are what the answer is about.
    if end and (before.startswith("<think>") or "<think>" not in before):
        return after.strip()
    return "" if text.startswith("<think>") else text


def joined(values: Sequence[str]) -> str:
    """Words in quotation marks, as a sentence lists them.

    >>> joined(["sea"]), joined(["sea", "sky", "sand"])
    ('"sea"', '"sea", "sky" and "sand"')
    """
    quoted = [f'"{value}"' for value in values]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
