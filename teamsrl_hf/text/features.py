"""Features for choosers: form and hashed words of a text, and the history of a chain. The same on every machine."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

from ..types import State
from .material import BLANK
from .words import count_words, word_grams

# What decides whether an operation fits a text; a feature each.
FORM = (
    *("length", "sentences", "material", "material_lines", "digits", "quotation", "ends_in_question", "has_question"),
    *("question_word", "how_or_why", "reasons"),
)
# Beside the form, words count little: with their full weight a policy learns the training seeds by heart.
WORD_WEIGHT = 0.2
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")
_QUOTATION = re.compile(r"[\"“”„«»「‘`]|(?<!\w)'")
_QUESTION = re.compile(r"[?？]")
_WORD = re.compile(r"\w+")
_QUESTION_WORDS = frozenset(("what", "why", "how", "who", "when", "where", "which", "whose", "in"))
_REASONS = re.compile(
    r"\b(?:why|because|reason(?:s|ing)?|explain|step by step|steps?|justify|compare|consider|trade)\b", re.I
)


def hashed_vectors(texts: Sequence[str], dim: int = 512) -> np.ndarray:
    """Counts of word 1- and 2-grams in `dim` hash buckets, each row of unit norm; float32, shape (len(texts), dim)."""
    return np.stack([_hashed_vector(text, dim) for text in texts]) if texts else np.zeros((0, dim), np.float32)


def hashed_grams(lists: Sequence[Sequence[str]], dim: int = 512) -> np.ndarray:
    """The same for lists of grams, float32 of shape (len(lists), dim); a list without grams is a row of zeros."""
    return np.stack([_counted(grams, dim) for grams in lists]) if lists else np.zeros((0, dim), np.float32)


@lru_cache(maxsize=20_000)
def added_grams(before: str, after: str) -> tuple[str, ...]:
    """Word 1- and 2-grams that `after` has more often than `before`, as often as it has more.

    >>> added_grams("Name a bird.", "Name a tall bird.")
    ('tall', 'a tall', 'tall bird')
    """
    return tuple((Counter(word_grams(after)) - Counter(word_grams(before))).elements())


@lru_cache(maxsize=20_000)
def _hashed_vector(text: str, dim: int) -> np.ndarray:
    return _counted(word_grams(text), dim)


def _counted(grams: Sequence[str], dim: int) -> np.ndarray:
    buckets = np.fromiter((crc32(gram.encode()) % dim for gram in grams), np.int64, len(grams))
    counts = np.bincount(buckets, minlength=dim).astype(np.float32)
    return counts / np.maximum(np.linalg.norm(counts), 1e-9)


def text_features(texts: Sequence[str], buckets: int) -> np.ndarray:
    """Form features and lightly weighted hashed words; float32 of shape (len(texts), len(FORM) + buckets)."""
    return np.concatenate([form_features(texts), WORD_WEIGHT * hashed_vectors(texts, buckets)], 1)


def form_features(texts: Sequence[str]) -> np.ndarray:
    """What kind of request each text is, by the features of `FORM`, all in [0, 1]; float32, shape (len(texts), F).

    >>> dict(zip(FORM, form_features(["Why is the sky blue?"])[0].tolist()))["how_or_why"]
    1.0
    """
    return np.stack([_form(text) for text in texts]) if texts else np.zeros((0, len(FORM)), np.float32)


@lru_cache(maxsize=20_000)
def _form(text: str) -> np.ndarray:
    head, _, material = text.partition(BLANK)
    head = head.strip()
    opening = _WORD.search(head)
    first = opening[0].lower() if opening else ""
    lines = sum(map(bool, map(str.strip, material.splitlines())))
    features = (
        min(math.log1p(count_words(head)) / 5, 1.0),  # Full at some 150 words.
        min(len(_SENTENCE_END.findall(head)) / 6, 1.0),
        lines > 0,
        min(math.log1p(lines) / 3, 1.0),  # Full at some 20 lines.
        any(map(str.isdigit, head)),
        bool(_QUOTATION.search(head)),
        head.endswith(("?", "？")),
        bool(_QUESTION.search(head)),
        first in _QUESTION_WORDS,
        first in ("how", "why"),
        min(len(_REASONS.findall(head)) / 3, 1.0),
    )
    return np.array(features, np.float32)


def history_features(states: Sequence[State], index: dict[str, int], length: int) -> np.ndarray:
    """History features of N states over K operations; float32, shape (N, 3 K + 2 + length).

    In order: share tried (K), share accepted (K), last operation (K), last passed (1), no operation yet (1), step
    (length).
    """
    return np.array([_history(state, index, length) for state in states], np.float32)


def _history(state: State, index: dict[str, int], length: int) -> list[float]:
    count = len(index)
    features = [0.0] * (3 * count + 2 + length)  # A list, because setting single elements of an array is slow.
    for name, accepted in zip(state.operations, state.accepted):
        features[index[name]] += 1.0 / length
        features[count + index[name]] += accepted / length
    if state.operations:
        features[2 * count + index[state.operations[-1]]] = 1.0
        features[3 * count] = float(state.accepted[-1])
    else:
        features[3 * count + 1] = 1.0
    features[3 * count + 2 + min(state.step, length - 1)] = 1.0
    return features
