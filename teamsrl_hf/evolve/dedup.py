"""Near-duplicates among all accepted rows: in goes a text, out comes whether another seed's row is nearly the same.

The signatures are rensa's. The index is not: rensa 0.5 takes 88 bytes for each band of a row, 2.8 kB a row as
measured, and this one 4 bytes in a table at most three quarters full, so that a million rows fit beside the models.
"""

from array import array

import numpy as np
from rensa import RMinHash

from ..text.words import word_grams

# 128 permutations in 32 bands: pairs at similarity .7 meet in some band with probability .9998. The lower 16 bits of
# each number are kept, so that a band is one word of 64 bits.
PERMUTATIONS, BANDS = 128, 32
# Rows that a bucket holds, and buckets that may hold a word. A word that more rows share, such as one of a common
# template, is no longer a hint, and is not searched for.
SLOTS, PROBES = 16, 4
_EMPTY = -1
# A table fuller than this is doubled.
MAX_LOAD = 0.75
_ALL_BANDS = np.arange(BANDS, dtype=np.int32)
_32, _32U, _FACTOR = np.int64(32), np.uint64(32), np.uint64(0xD6E8FEB86659FD93)
_SALT = np.arange(1, BANDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class NearDuplicates:
    """An index that grows: MinHash over words and their pairs, locality-sensitive hashing, candidates verified.

    Rows of one seed are never compared with each other: a deeper instruction repeats its parent on purpose, and
    whether it gained anything is the reviewer's question.

    Args:
        threshold: Least estimated Jaccard similarity of two texts that count as the same.
    """

    def __init__(self, threshold: float = 0.7):
        self.threshold = threshold
        self._count = 0
        self._words = np.zeros((1024, BANDS), np.uint64)  # A row's signature, four permutations to a word.
        self._seeds = np.zeros(1024, np.int64)
        self._make_table(4096)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, seed_id: str) -> bool:
        """Add `text` unless it is a near-duplicate of a row from another seed; returns whether it was added."""
        words, seed = _signature(text), hash(seed_id)
        places = self._search(words, seed)
        if places is None:
            return False
        if self._count == len(self._seeds):
            # In place: a copy would for a moment take as much again.
            self._words.resize((self._count + self._count // 4, BANDS), refcheck=False)
            self._seeds.resize(len(self._words), refcheck=False)
        self._words[self._count], self._seeds[self._count] = words, seed
        self._count += 1
        if self._count * BANDS > MAX_LOAD * self._table.size:
            self._double()
        else:
            for bucket, slot in places:
                self._table[bucket, slot] = self._count - 1
                self._taken[bucket] = slot + 1
        return True

    def _search(self, words: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Buckets and slots that are free for a new row, or None if a near-duplicate was met on the way."""
        mixed, bands = _mix(words), _ALL_BANDS
        places: list[tuple[np.ndarray, np.ndarray]] = []
        rare = [band for band, word in enumerate(mixed.tolist()) if word not in self._common]
        if 0 < len(rare) < BANDS:  # A text of common words alone is looked for by these.
            bands = np.array(rare, np.int32)
            mixed = mixed[bands]
        for probe in range(PROBES):
            bucket = self._bucket(mixed, probe)
            rows = self._table.take(bucket, axis=0)  # (bands still sought, SLOTS)
            same = self._words.ravel().take(rows * BANDS + bands[:, None]) == words[bands, None]
            if np.count_nonzero(same) and self._similar(rows[same], words, seed):
                return None
            taken = self._taken.take(bucket)
            full = taken == SLOTS
            if not np.count_nonzero(full):
                # Two bands may be given one slot: what has to be found there is the row.
                return [*places, (bucket, taken)]
            places.append((bucket[~full], taken[~full]))
            bands, mixed = bands[full], mixed[full]
        self._common.update(mixed.tolist())
        return places

    def _similar(self, rows: np.ndarray, words: np.ndarray, seed: int) -> bool:
        met = set(rows.tolist())
        others = [row for row in met if row != _EMPTY and self._seeds[row] != seed]
        if not others:
            return False
        equal = self._words[others].view(np.uint16) == words.view(np.uint16)
        return bool((np.count_nonzero(equal, axis=1) >= self.threshold * PERMUTATIONS).any())

    def _make_table(self, buckets: int) -> None:
        self._table = np.full((buckets, SLOTS), _EMPTY, np.int32)
        self._taken = np.zeros(buckets, np.uint8)  # Slots of each bucket.
        self._common: set[int] = set()  # Words that have found no place any more, and are looked for no longer.

    def _insert_many(self, mixed: np.ndarray, rows: np.ndarray) -> None:
        for probe in range(PROBES):
            bucket = self._bucket(mixed, probe)
            order = np.argsort(bucket, kind="stable")
            bucket, mixed, rows = bucket[order], mixed[order], rows[order]
            # Those that meet in one bucket take its slots one after the other.
            slot = np.arange(len(bucket)) - np.searchsorted(bucket, bucket) + self._taken[bucket]
            fits = slot < SLOTS
            self._table[bucket[fits], slot[fits]] = rows[fits]
            np.maximum.at(self._taken, bucket[fits], slot[fits].astype(np.uint8) + np.uint8(1))
            mixed, rows = mixed[~fits], rows[~fits]

    def _double(self) -> None:
        buckets = 2 * len(self._table)
        del self._table  # Before the new one is taken.
        self._make_table(buckets)
        for first in range(0, self._count, 1024):
            rows = np.arange(first, min(first + 1024, self._count), dtype=np.int32)
            self._insert_many(_mix(self._words[rows]).ravel(), np.repeat(rows, BANDS))

    def _bucket(self, mixed: np.ndarray, probe: int) -> np.ndarray:
        """Where to look for words the `probe`-th time: a first bucket and odd steps from there, both from the hash."""
        # The table's length is a power of two.
        if not probe:
            return mixed >> _32 & len(self._table) - 1
        return (mixed >> _32) + probe * (mixed & 0xFFFF | 1) & len(self._table) - 1


def _mix(words: np.ndarray) -> np.ndarray:
    """A hash of each word and its band, non-negative int64 of the same shape (..., BANDS)."""
    mixed = (words ^ _SALT) * _FACTOR
    return ((mixed ^ (mixed >> _32U)) * _FACTOR).view(np.int64) & 0x7FFFFFFFFFFFFFFF


def _signature(text: str) -> np.ndarray:
    """MinHash of word 1- and 2-grams, uint64 of shape (BANDS,)."""
    minhash = RMinHash(PERMUTATIONS, 1)
    minhash.update(word_grams(text))
    return np.frombuffer(array("I", minhash.digest()), np.uint32).astype(np.uint16).view(np.uint64)
