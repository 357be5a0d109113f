"""Near-duplicates of everything accepted so far: in goes a text, out comes whether another seed's row says it too."""

from itertools import pairwise

from rensa import RMinHash, RMinHashLSH

from .features import normalise

# 128 permutations in 32 bands: pairs at similarity .7 meet in some band with probability .9998.
PERMUTATIONS, BANDS = 128, 32


class NearDuplicates:
    """An index that grows: MinHash over word 1- and 2-grams, locality-sensitive hashing, candidates verified.

    Rows of one seed are never held against each other: a deeper instruction repeats its parent on purpose, and
    whether it gained anything is the reviewer's question.

    Args:
        threshold: Estimated Jaccard similarity from which on two texts count as the same.
    """

    def __init__(self, threshold: float = 0.7):
        self.threshold = threshold
        self._index = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._rows: list[tuple[str, RMinHash]] = []

    def add(self, text: str, seed_id: str) -> bool:
        """Add `text` unless it is a near-duplicate of a row from another seed; returns whether it was added."""
        minhash = _minhash(text)
        for key in self._index.query(minhash):
            other, known = self._rows[key]
            if other != seed_id and minhash.jaccard(known) >= self.threshold:
                return False
        self._index.insert(len(self._rows), minhash)
        self._rows.append((seed_id, minhash))
        return True


def _minhash(text: str) -> RMinHash:
    tokens = normalise(text).split()
    minhash = RMinHash(PERMUTATIONS, 1)
    minhash.update(tokens + [f"{a} {b}" for a, b in pairwise(tokens)])
    return minhash
