"""Measures of a set of instructions: in come texts, embeddings or counts, out come numbers and their intervals.

Set measures depend on the number of texts: compare sets of equal size. Judge a learned policy under an embedding other
than the one that paid its reward; the default here sees words, as rule-based rewards do, so pass a sentence embedding.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import NormalDist

import numpy as np

Embed = Callable[[Sequence[str]], np.ndarray]

# What Evol-Instruct (arXiv 2304.12244) spent: 52,000 seeds x 4 rounds x 3 calls, for 250,000 rows.
EVOL_INSTRUCT_CALLS, EVOL_INSTRUCT_ROWS = 624_000, 250_000


def hashed_embeddings(texts: Sequence[str], dim: int = 512) -> np.ndarray:
    """Word 1- and 2-grams hashed with random signs into `dim` buckets: float32, (len(texts), dim), rows of length 1.

    Needs no model and is the same everywhere, but sees words only: paraphrases count as different.
    """
    _some(texts, "texts")
    vectors = np.zeros((len(texts), dim), np.float32)
    for row, text in zip(vectors, texts):
        words = _words(text) or [text]
        hashes = np.array([zlib.crc32(_bytes(gram)) for gram in words + _ngrams(words, 2)], np.int64)
        # n words give 2n - 1 grams; an odd number of signs cannot cancel, so no row is zero.
        np.add.at(row, hashes % dim, np.where(hashes >> 31, 1.0, -1.0))
    return _unit(vectors)


def vendi_score(embeddings: np.ndarray) -> float:
    """How many different texts there are in effect (arXiv 2210.02410): 1 for copies, N for N orthogonal rows.

    The exponential of the entropy of the eigenvalues of EᵀE/N, with E of shape (N, D) scaled to rows of length 1.
    """
    unit = _unit(_some(embeddings, "embeddings")).astype(np.float64)
    gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    eigenvalues = np.linalg.eigvalsh(gram / len(unit))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Mean of 1 - cosine over the pairs of rows of (N, D), N at least 2: 0 for copies, 1 for orthogonal rows."""
    unit = _unit(_some(embeddings, "embeddings", 2)).astype(np.float64)
    n = len(unit)
    return float(1 - (np.square(unit.sum(axis=0)).sum() - n) / (n * (n - 1)))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different word n-grams per n-gram over the whole set: 1 when none is used twice. Falls as a set grows."""
    grams = list(chain.from_iterable(_ngrams(_words(text), n) for text in _some(texts, "texts")))
    return len(set(grams)) / len(_some(grams, f"texts of {n} or more words"))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes per zlib-compressed byte of the joined texts: higher is more repetitive. zlib looks back 32 KiB only."""
    raw = _bytes("\n".join(_some(texts, "texts")))
    return len(raw) / len(zlib.compress(raw, 9))


def self_repetition(texts: Sequence[str], n: int = 4) -> float:
    """Mean over texts of log(1 + how often their word n-grams occur in other texts, once per text): 0 when never."""
    grams = [set(_ngrams(_words(text), n)) for text in _some(texts, "texts")]
    holders = Counter(chain.from_iterable(grams))
    return sum(math.log1p(sum(holders[gram] - 1 for gram in held)) for held in grams) / len(grams)


def novelty(texts: Sequence[str], references: Sequence[str], embed: Embed = hashed_embeddings) -> np.ndarray:
    """1 - cosine to the nearest of `references`, per text: floats of shape (len(texts),); 0 for a copy."""
    ours = _unit(embed(_some(texts, "texts")))
    theirs = _unit(embed(_some(references, "references")))
    nearest = [(ours[i : i + 1024] @ theirs.T).max(axis=1) for i in range(0, len(ours), 1024)]
    return np.maximum(1 - np.concatenate(nearest), 0)


def instruction_measures(
    texts: Sequence[str], references: Sequence[str] = (), embed: Embed = hashed_embeddings, seed: int = 0
) -> dict[str, float | tuple[float, float]]:
    """All of the above for one set; `novelty` (with its interval) only when there are references to compare with."""
    embeddings = embed(_some(texts, "texts", 2))
    lengths = np.array([len(_words(text)) for text in texts], float)
    measures = {
        "rows": len(texts),
        "words": float(lengths.mean()),
        "words_interval": bootstrap_interval(lengths, seed=seed),
        "vendi_score": vendi_score(embeddings),
        "mean_pairwise_distance": mean_pairwise_distance(embeddings),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "compression_ratio": compression_ratio(texts),
        "self_repetition": self_repetition(texts),
    }
    if len(references):
        scores = novelty(texts, references, embed)
        measures |= {"novelty": float(scores.mean()), "novelty_interval": bootstrap_interval(scores, seed=seed)}
    return measures


def bootstrap_interval(
    values: Sequence[float] | tuple[np.ndarray, ...],
    statistic: Callable[..., float] = np.mean,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic`.

    Of no use for measures of repetition (Vendi score, distinct-n ...): a resample repeats texts and so lowers them.

    Args:
        values: One sample; or a tuple of arrays, each resampled on its own and passed as one argument to `statistic`.
        level: Share of intervals that should hold the truth, between 0 and 1.
    """
    _level(level)
    samples = [np.asarray(sample) for sample in (values if isinstance(values, tuple) else (values,))]
    sizes = [len(_some(sample, "values")) for sample in samples]
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(*(sample[rng.integers(size, size=size)] for sample, size in zip(samples, sizes)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(wins: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of the rate behind `wins` out of `n`; stays within [0, 1] and is honest near both ends."""
    _level(level)
    if not 0 <= wins <= n or n < 1:
        raise ValueError(f"{wins} wins out of {n} is no rate; give 0 <= wins <= n and n of at least 1.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, spread = wins / n, z * math.sqrt(wins * (n - wins) / n + z * z / 4) / (n + z * z)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def query_efficiency(calls_by_role: Mapping[str, int], accepted_rows: int) -> dict[str, float | dict[str, float]]:
    """Calls spent for what was accepted, and their share of what Evol-Instruct spent.

    Read both: `share_of_baseline_total` also falls when the dataset is merely smaller, the share per row does not.
    """
    if accepted_rows < 1 or any(calls < 0 for calls in calls_by_role.values()):
        raise ValueError(
            f"{accepted_rows} rows from calls {dict(calls_by_role)}: need one row or more, no negative count."
        )
    calls = sum(calls_by_role.values())
    return {
        "calls": calls,
        "accepted_rows": accepted_rows,
        "calls_per_row": calls / accepted_rows,
        "calls_per_row_by_role": {role: made / accepted_rows for role, made in sorted(calls_by_role.items())},
        "share_of_baseline_per_row": calls / accepted_rows / (EVOL_INSTRUCT_CALLS / EVOL_INSTRUCT_ROWS),
        "share_of_baseline_total": calls / EVOL_INSTRUCT_CALLS,
    }


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _ngrams(words: list[str], n: int) -> list[str]:
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]


def _some(items, name: str, least: int = 1):
    if len(items) < least:
        raise ValueError(f"Got {len(items)} {name}; this measure needs at least {least}.")
    return items


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"Embeddings have shape {vectors.shape}; they must have two dimensions, (texts, features).")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        row = int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))[0])
        raise ValueError(f"Embedding {row} is zero or not finite, so it has no direction; drop that text.")
    return vectors / norms


def _level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.95.")
