"""The one tokeniser: in goes a text of any script, out come its words, for duplicates, benchmarks, limits, features.

Plain ASCII text gives runs of letters and digits in lower case. What follows is for everything else: scripts that put
no spaces between words give overlapping character n-grams, combining marks stay with their letter, different encodings
of one character are one, and a symbol that changes what is asked (C++, a < b, -5, €) is a word of its own.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

# Scripts without spaces, in two kinds: Han, kana and Yi, where one or two characters make a word; and Thai, Lao,
# Tibetan, Burmese, Khmer, Tai, Balinese and Javanese, where it takes about four.
_SHORT = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf"
_SHORT += "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
_LONG_BLOCKS = (
    *((0x0E01, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF)),
    *((0x1A20, 0x1AAF), (0x1B00, 0x1B7F), (0xA980, 0xA9FF), (0xAA60, 0xAADF)),
)
_IN_SHORT = re.compile(f"[{_SHORT}]")
# Characters in a word, on average, and in an n-gram. Two kinds, not one number a script: only limits depend on it.
SHORT_WIDTH, LONG_WIDTH = 1.5, 4.0
_SHORT_GRAM, _LONG_GRAM = 2, 3

# An operator stands between numbers, single letters or brackets, with at most one space; elsewhere it is a dash,
# a bullet, emphasis or "and/or".
_BEHIND = r"(?:(?<=\d)|(?<=\d )|(?<=\b[a-z])|(?<=\b[a-z] )|(?<=[)\]])|(?<=[)\]] ))"
_OPERATOR = rf"{_BEHIND}(?:\*\*|[-*/^])(?= ?(?:[\d(-]|[a-z]\b))"
_SYMBOLS = (
    r"\+|<|(?<=[^\n])>|(?<=[^\n=])={1,3}(?!=)|[$%&]",  # At a line's start ==== is a rule, and > begins a quotation.
    r"-(?=\.?\d)(?<![\w)\]]-)|\.(?=\w)(?<![\w.]\.)",  # -5, .5 and .NET
    r"#(?=\w)|(?<=\w)#",  # C# and #include, but no heading
    r"!(?==)|!(?=[\w(])(?<![\w!?.]!)",  # != and !ready
    r"\|\|",
    _OPERATOR,
)
# For ASCII texts alone: `re.A` halves the time.
_ASCII = re.compile(rf"\w+(?:'\w+)?|{'|'.join(_SYMBOLS)}", re.A)
_PLAIN = re.compile(r"\w+(?:'\w+)?", re.A)
# Any character that `_SYMBOLS` could find: most texts hold none of these, and are searched faster without them. The
# set of characters in front of everything else makes it fast.
_MAY_MATTER = re.compile(
    r"[-+<>=$%&#^*/.!|\d](?:(?<=[+<>=$%&#^*/])|(?<=[-.!])(?=[\w(=.])|(?<=\d)(?= ?-)|(?<=\|)\|)", re.A
)

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʹ՚＇´`", "'") | dict.fromkeys("‐‑–−﹣－", "-"))
# NFKC would make 3² the number 32.
_FOLDED = re.compile("[^\u00b2\u00b3\u00b9\u2070-\u209c\u00bc-\u00be\u2150-\u215f\u2189]+")
_LINES = re.compile("[\u2500-\u257f]")  # Borders of tables.


@lru_cache(maxsize=20_000)
def normalise(text: str) -> str:
    """Words and symbols that matter, single-spaced: equal for texts that differ in case, spacing, punctuation alone.

    Characters of a script without spaces stand together, whatever stood between them.

    >>> normalise("  Sort these: 3, 1!") == normalise("sort these 3 1")
    True
    >>> normalise("Pointers in C++"), normalise("天空，是 蓝色的。")
    ('pointers in c + +', '天空是蓝色的')
    """
    if text.isascii():
        found = (_ASCII if _MAY_MATTER.search(text) else _PLAIN).findall(text.lower())
        return " ".join(found)
    folded = _fold(text)
    return _joined([match[0] for match in _every_script().finditer(folded)])


def words(text: str) -> list[str]:
    """The words of a text; n-grams of characters where a script puts no spaces between words.

    >>> words("Explain C# to me"), words("天空是蓝的")
    (['explain', 'c', '#', 'to', 'me'], ['天空', '空是', '是蓝', '蓝的'])
    """
    tokens = normalise(text).split()
    return tokens if text.isascii() else [gram for token in tokens for gram in _grams(token)]


def word_grams(text: str) -> list[str]:
    """Its words, and its pairs of neighbouring words.

    >>> word_grams("Sort these, please!")
    ['sort', 'these', 'please', 'sort these', 'these please']
    """
    tokens = words(text)
    return tokens + [f"{a} {b}" for a, b in pairwise(tokens)]


def units(normal: str) -> list[str]:
    """The words of a normalised text for comparing passages: symbols and apostrophes left out, characters one by one.

    >>> units(normalise("Don't add 3 + 4")), units("天空 at 9")
    (['dont', 'add', '3', '4'], ['天', '空', 'at', '9'])
    """
    tokens = normal.replace("'", "").split()
    if normal.isascii():
        return [token for token in tokens if token[0].isalnum() or token[0] == "_"]
    return [unit for token in tokens if not _is_symbol(token) for unit in (token if width(token) > 1 else (token,))]


def width(token: str) -> float:
    """Characters in a word of the script that a normalised token is in; 1 where spaces part the words.

    >>> width("blue"), width("蓝色"), width("สีฟ้า")
    (1.0, 1.5, 4.0)
    """
    if token.isascii():
        return 1.0
    return SHORT_WIDTH if _IN_SHORT.match(token) else LONG_WIDTH if _is_long(token[0]) else 1.0


def count_words(text: str) -> int:
    """Number of words: parts between spaces, and an estimate from the characters where a script has no spaces.

    >>> count_words("Name a bird, please."), count_words("请说出一种鸟的名字")
    (4, 6)
    """
    parts = text.split()
    if text.isascii():
        return len(parts)
    count = 0.0
    for part in parts:
        short, long = len(_IN_SHORT.findall(part)), sum(map(_is_long, part))
        count += short / SHORT_WIDTH + long / LONG_WIDTH
        count += (not short and not long) or (len(part) > short + long and any(map(_is_spaced, part)))
    return round(count)


def _fold(text: str) -> str:
    text = _ignorable().sub("", text.translate(_APOSTROPHES))
    text = _FOLDED.sub(lambda part: unicodedata.normalize("NFKC", part[0]), text)
    return unicodedata.normalize("NFC", text.casefold())


def _joined(tokens: list[str]) -> str:
    """Tokens with single spaces, but none within a script that has none."""
    parts: list[str] = []
    kind = 1.0
    for token in tokens:
        before, kind = kind, width(token)
        if parts and kind > 1 and kind == before:
            parts[-1] += token
        else:
            parts.append(token)
    return " ".join(parts)


def _grams(token: str) -> list[str]:
    wide = width(token)
    size = 1 if wide == 1 else _SHORT_GRAM if wide == SHORT_WIDTH else _LONG_GRAM
    if size == 1 or len(token) <= size:
        return [token]
    return [token[i : i + size] for i in range(len(token) - size + 1)]


@lru_cache(maxsize=4096)
def _is_long(character: str) -> bool:
    """Whether a letter, mark or digit is of the scripts without spaces whose words take several characters."""
    point = ord(character)
    in_block = any(first <= point <= last for first, last in _LONG_BLOCKS)
    return in_block and unicodedata.category(character)[0] in "LMN"


def _is_spaced(character: str) -> bool:
    return character.isalnum() and not _is_long(character) and not _IN_SHORT.match(character)


def _is_symbol(token: str) -> bool:
    return not (token[0].isalnum() or token[0] == "_" or unicodedata.category(token[0])[0] == "M")


@lru_cache(maxsize=1)
def _every_script() -> re.Pattern[str]:
    """The pattern of a token in any script. Built when first wanted: it asks for the kind of 130,000 characters."""
    kinds: dict[str, list[str]] = {"M": [], "S": [], "long": []}
    for point in [*range(0x80, 0x20000), *range(0xE0100, 0xE01F0)]:
        character = chr(point)
        category = unicodedata.category(character)
        if _is_long(character):
            kinds["long"].append(character)
        elif category[0] == "M":
            kinds["M"].append(character)
        elif category in ("Sm", "Sc", "So") or 0x1F3FB <= point <= 0x1F3FF:
            kinds["S"].append(character)
    long, marks = "".join(kinds["long"]), "".join(kinds["M"])
    letter = f"(?:[^\\W{_SHORT}{long}]|[{marks}])"
    symbol = f"(?!{_LINES.pattern})[{''.join(kinds['S'])}]"
    return re.compile(rf"[{_SHORT}]+|[{long}]+|{letter}+(?:'{letter}+)?|{'|'.join(_SYMBOLS)}|{symbol}")


@lru_cache(maxsize=1)
def _ignorable() -> re.Pattern[str]:
    """Characters without a meaning of their own: joiners, soft hyphens, marks of direction, variation selectors."""
    return re.compile("[\u00ad\u0640\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
