"""Features for choosers: hashed words of a text, and the history of a chain. The same on every machine."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

from ..types import State
from .words import word_grams


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
