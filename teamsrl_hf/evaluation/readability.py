"""How hard texts are to read: in go texts or words, out come reading grades and lexical diversity.

The package textstat has the same grade, but it counts syllables with a dictionary (nltk's cmudict) that it downloads
on first use, and fails without a network. Ours needs no data.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from ..text import words as tokens
from .intervals import at_least


def flesch_kincaid_grade(text: str) -> float:
    """US school grade of English text (Kincaid 1975): .39 words/sentence + 11.8 syllables/word - 15.59."""
    words = at_least(words_of(text), "words")
    per_word = sum(syllables(word) for word in words) / len(words)
    return 0.39 * len(words) / max(1, len(sentences_of(text))) + 11.8 * per_word - 15.59


@lru_cache(maxsize=100_000)
def syllables(word: str) -> int:
    """Syllables of an English word by its groups of vowels, less a silent e; right for about nine words in ten.

    >>> [syllables(word) for word in ("now", "table", "explain", "written", "elephant", "computer", "describe")]
    [1, 2, 2, 2, 3, 3, 2]
    """
    word = word.lower()
    groups = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouyl]e$|[^aeiouytd]ed$|[aeiouy]le$|[^aeiouyscxzgh]es$", word)
    return max(1, groups - bool(silent))


def mtld(words: Sequence[str], threshold: float = 0.72) -> float:
    """Lexical diversity that does not fall with length (McCarthy and Jarvis 2010), mean of both directions.

    It is the mean number of words until the share of different words falls to `threshold`. Below some hundred words it
    is noise, so measure a whole set; it also rises when unrelated texts are joined.
    """
    return (_mtld(at_least(words, "words"), threshold) + _mtld(list(reversed(words)), threshold)) / 2


def _mtld(words: Sequence[str], threshold: float) -> float:
    factors, tokens, ratio = 0.0, 0, 1.0
    types: set[str] = set()
    for word in words:
        tokens += 1
        types.add(word)
        ratio = len(types) / tokens
        if ratio <= threshold:
            factors, types, tokens, ratio = factors + 1, set(), 0, 1.0
    factors += (1 - ratio) / (1 - threshold)
    # No word is repeated: the measure is at least the length.
    return len(words) / factors if factors else float(len(words))


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation; n-grams of characters in scripts without spaces."""
    return (
        re.findall(r"\w+", text.lower())
        if text.isascii()
        else [word for word in tokens.words(text) if any(map(str.isalnum, word))]
    )


def sentences_of(text: str) -> list[str]:
    """Sentences and lines of a text that hold a word."""
    return [piece for piece in re.split(r"[.!?]+(?:\s|$)|[。！？।؟။]+|\n+", text) if words_of(piece)]
