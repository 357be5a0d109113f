"""Measures of a set of instructions: in come texts, embeddings or counts, out come numbers and their intervals.

Set measures depend on the number of texts: compare sets of equal size. Judge a learned policy under an embedding other
than the one that paid its reward; the default here sees words, as rule-based rewards do, so name a sentence embedding.
`metrics/` holds the same measures as modules of the `evaluate` library.
"""

import math
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from ..environment.review import instruction_violations, response_violations
from ..errors import UserError
from ..loading import loading
from ..models.accounting import EVOL_INSTRUCT_CALLS, EVOL_INSTRUCT_ROWS, report
from ..text.operations import OPERATIONS, Operation
from ..text.words import word_grams

Embed = Callable[[Sequence[str]], np.ndarray]
Interval = tuple[float, float]
HASHED_WORDS = "hashed_words"
HASH_BUCKETS = 65_536
# Texts whose similarities, and eigenvalues of these, a set measure takes; more would take minutes.
MOST_EMBEDDED = 2_048
# Below this many texts half of them are too few to learn a spread from.
TEXTS_FOR_INTERVAL = 20
# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom.
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def hashed_embeddings(texts: Sequence[str], dim: int = HASH_BUCKETS) -> np.ndarray:
    """Word 1- and 2-grams counted in `dim` hash buckets: float32, (len(texts), dim), rows of length 1.

    A bit of the hash signs each gram, so that grams that share a bucket change no cosine on average (Weinberger et al.
    2009): with the default the Vendi score of 602 rewrites is .2 % below that of the grams themselves, that of 602
    answers .1 %; with 1,024 unsigned buckets it was 25 and 35 %. Needs no model and is the same everywhere, but sees
    words only: paraphrases count as different. A text without words gets a bucket of its own, since a row must point
    somewhere.
    """
    vectors = np.zeros((len(_some(texts, "texts")), dim), np.float32)
    for row, text in zip(vectors, texts):
        hashes = np.array([zlib.crc32(gram.encode()) for gram in word_grams(text)], np.int64)
        np.add.at(row, hashes % dim, np.where(hashes >> 31, -1.0, 1.0))
        if not row.any():
            row[zlib.crc32(_bytes(text)) % dim] = 1.0
        row /= np.linalg.norm(row)
    return vectors


def embedder(name: str = HASHED_WORDS) -> Embed:
    """The embedding of that name: "hashed_words" (offline, no model), or any sentence-transformers model or folder.

    Raises:
        UserError: There is no such model, it can't be reached, or sentence-transformers is not installed.
    """
    if name == HASHED_WORDS:
        return hashed_embeddings
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"The embedding {name!r} needs sentence-transformers: pip install 'teamsrl-hf[evaluation]'"
        ) from error
    with loading("embedding", name):
        model = SentenceTransformer(name, trust_remote_code=False)
    return lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def vendi_score(embeddings: np.ndarray) -> float:
    """How many different texts there are in effect (arXiv 2210.02410): 1 for copies, N for N orthogonal rows.

    The exponential of the entropy of the eigenvalues of EᵀE/N, with E of shape (N, D) scaled to rows of length 1.
    """
    unit = _unit(_some(embeddings, "embeddings"))
    if len(unit) < unit.shape[1]:
        return _vendi(_cosines(unit))
    return _vendi(_cosines(unit.T) * (unit.shape[1] / len(unit)))


def _vendi(gram: np.ndarray) -> float:
    """Exponential of the entropy of the eigenvalues of a square matrix over the number of its rows."""
    eigenvalues = np.linalg.eigvalsh(gram / len(gram))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def _cosines(unit: np.ndarray) -> np.ndarray:
    """Inner products of rows; columns that no row uses, most of a wide hash, are left out."""
    used = unit[:, unit.any(axis=0)].astype(np.float64)
    return used @ used.T


def mean_pairwise_distance(embeddings: np.ndarray) -> float:
    """Mean of 1 - cosine over the pairs of rows of (N, D), N at least 2: 0 for copies, 1 for orthogonal rows."""
    unit = _unit(_some(embeddings, "embeddings", 2)).astype(np.float64)
    return _mean_distance(np.square(unit.sum(axis=0)).sum(), len(unit))


def _mean_distance(sum_of_cosines: float, n: int) -> float:
    return float(1 - (sum_of_cosines - n) / (n * (n - 1)))


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


def diversity_measures(
    texts: Sequence[str], embed: Embed = hashed_embeddings, seed: int = 0, resamples: int = 50
) -> dict[str, Any]:
    """Set measures of diversity, each with `<name>_interval`: Vendi score, dispersion, distinct-1 and -2, ...

    All of them depend on the number of texts: compare sets of equal size. The two that embed texts, Vendi score and
    mean pairwise distance, are of `embedded_rows`: of more than 2,048 texts so many are drawn by `seed`, since
    eigenvalues take time by the cube.
    """
    cosines = _cosines(_unit(embed(_drawn(_some(texts, "texts", 2), seed))))
    several = [text for text in texts if len(_words(text)) > 1]
    wordy = [text for text in texts if _words(text)]
    measures: dict[str, tuple[Any, Callable[[Any], float]]] = {
        "vendi_score": (cosines, _vendi),
        "mean_pairwise_distance": (cosines, lambda some: _mean_distance(some.sum(), len(some))),
        "distinct_1": (wordy, lambda some: distinct_n(some, 1)),
        "distinct_2": (several, lambda some: distinct_n(some, 2)),
        "compression_ratio": (texts, compression_ratio),
        "self_repetition": (texts, self_repetition),
    }
    found: dict[str, Any] = {"rows": len(texts), "embedded_rows": len(cosines)}
    for name, (items, measure) in measures.items():
        found[name] = measure(items)
        found[f"{name}_interval"] = half_sample_interval(
            len(items), lambda rows, items=items, measure=measure: measure(_taken(items, rows)), seed, resamples
        )
    return found


def _drawn(texts: Sequence[str], seed: int) -> list[str]:
    """The texts, or `MOST_EMBEDDED` of them in their order."""
    if len(texts) <= MOST_EMBEDDED:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), MOST_EMBEDDED, replace=False)
    return [texts[row] for row in sorted(rows)]


def _taken(items: Any, rows: np.ndarray) -> Any:
    """Some of the items; of a square matrix of cosines, their rows and columns."""
    return items[np.ix_(rows, rows)] if isinstance(items, np.ndarray) else [items[i] for i in rows]


def complexity_measures(texts: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """How hard texts are to read, with intervals: words, words per sentence, Flesch-Kincaid grade, MTLD of them all.

    `words` is length, not difficulty, and is here to be controlled for; the others don't grow when a text is repeated.
    A reader's grade says nothing of how hard a task is to solve.
    """
    words = [_words(text) for text in texts]
    sentences = [max(1, len(_sentences(text))) for text in texts]
    wordy = [text for text in texts if _words(text)]
    samples = {
        "words": [len(row) for row in words],
        "words_per_sentence": [len(row) / count for row, count in zip(words, sentences)],
        "flesch_kincaid_grade": [flesch_kincaid_grade(text) for text in _some(wordy, "texts with words")],
    }
    found: dict[str, Any] = {"rows": len(texts)}
    for name, values in samples.items():
        found[name] = float(np.mean(values))
        found[f"{name}_interval"] = bootstrap_interval(values, seed=seed)

    def variety(rows: Sequence[int]) -> float:
        return mtld(list(chain.from_iterable(words[i] for i in rows)))

    found["mtld"] = variety(range(len(words)))
    found["mtld_interval"] = half_sample_interval(len(words), variety, seed)
    return found


def flesch_kincaid_grade(text: str) -> float:
    """US school grade of English text (Kincaid 1975): .39 words/sentence + 11.8 syllables/word - 15.59."""
    words = _some(_words(text), "words")
    per_word = sum(syllables(word) for word in words) / len(words)
    return 0.39 * len(words) / max(1, len(_sentences(text))) + 11.8 * per_word - 15.59


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

    How many words it takes until different words per word fall to `threshold`. Below some hundred words it is noise,
    so take it over a whole set; it also rises when unrelated texts are put one after the other.
    """
    return (_mtld(_some(words, "words"), threshold) + _mtld(list(reversed(words)), threshold)) / 2


def _mtld(words: Sequence[str], threshold: float) -> float:
    factors, types, tokens, ratio = 0.0, set(), 0, 1.0
    for word in words:
        tokens += 1
        types.add(word)
        ratio = len(types) / tokens
        if ratio <= threshold:
            factors, types, tokens, ratio = factors + 1, set(), 0, 1.0
    factors += (1 - ratio) / (1 - threshold)
    # Not one repeated word: the measure is at least the length.
    return len(words) / factors if factors else float(len(words))


def novelty_measures(
    texts: Sequence[str], references: Sequence[str], embed: Embed = hashed_embeddings, seed: int = 0
) -> dict[str, Any]:
    """Mean novelty to `references` with its interval, and the share of texts that are copies (novelty below .001)."""
    scores = novelty(texts, references, embed)
    copies = int((scores < 1e-3).sum())
    return {
        "rows": len(texts),
        "novelty": float(scores.mean()),
        "novelty_interval": bootstrap_interval(scores, seed=seed),
        "copies": copies / len(scores),
        "copies_interval": wilson_interval(copies, len(scores)),
    }


def validity_measures(
    rewrites: Sequence[str],
    instructions: Sequence[str],
    responses: Sequence[str] = (),
    operations: Sequence[Operation] = OPERATIONS,
) -> dict[str, Any]:
    """Shares of rewrites (and answers) that break no elimination rule, with Wilson intervals, and counts by rule.

    The rules find what is broken, not what is poor: an answer may pass all of them and be wrong.

    Args:
        rewrites: N texts.
        instructions: N texts they were rewritten from.
        responses: N answers to them, or none.
        operations: Whose wording a rewrite must not repeat.
    """
    _aligned(rewrites, instructions, "instructions")
    broken = [_violations(*pair, operations) for pair in zip(instructions, rewrites)]
    found = {"rows": len(rewrites)} | _shares("valid_instructions", broken)
    if len(responses):
        _aligned(rewrites, responses, "responses")
        found |= _shares("valid_responses", [response_violations(text) for text in responses])
    return found


def _violations(instruction: str, rewrite: str, operations: Sequence[Operation]) -> tuple[str, ...]:
    found = (instruction_violations(instruction, rewrite, (), operation) for operation in operations)
    return tuple(dict.fromkeys(chain.from_iterable(found)))


def _shares(name: str, broken: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    passed = sum(not rules for rules in broken)
    return {
        name: passed / len(broken),
        f"{name}_interval": wilson_interval(passed, len(broken)),
        f"{name}_rules": dict(sorted(Counter(chain.from_iterable(broken)).items())),
    }


def _aligned(texts: Sequence[str], others: Sequence[str], name: str) -> None:
    if len(_some(texts, "texts")) != len(others):
        raise UserError(f"Got {len(texts)} texts but {len(others)} {name}; give one for each text.")


def instruction_measures(
    texts: Sequence[str], references: Sequence[str] = (), embed: Embed = hashed_embeddings, seed: int = 0
) -> dict[str, Any]:
    """Length, diversity and (when there are `references` to compare with) novelty of one set, with intervals."""
    lengths = [len(_words(text)) for text in _some(texts, "texts", 2)]
    measures = {"words": float(np.mean(lengths)), "words_interval": bootstrap_interval(lengths, seed=seed)}
    measures |= diversity_measures(texts, embed, seed)
    return measures | (novelty_measures(texts, references, embed, seed) if len(references) else {})


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of two or more values and half the width of its 95 % interval, by Student's t.

    >>> mean_interval([1.0, 2.0, 3.0])[0], round(mean_interval([1.0, 2.0, 3.0])[1], 3)
    (2.0, 2.484)
    """
    freedom = len(values) - 1
    quantile = T_95[freedom - 1] if freedom <= len(T_95) else 1.96 + 2.4 / freedom
    return statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def half_sample_interval(
    size: int,
    statistic: Callable[[np.ndarray], float],
    seed: int = 0,
    resamples: int = 50,
    level: float = 0.95,
) -> Interval | None:
    """Interval of a measure of repetition, which a bootstrap would bias since its resamples repeat texts.

    Delete-half jackknife (Shao and Wu 1989): the spread over random halves, drawn without repetition, is that of the
    whole. As such measures change with size, it is scaled by the measure of the whole over that of the halves; and as
    none is ever negative, the interval ends at 0.

    Args:
        size: How many items there are.
        statistic: From indices of items (int, distinct) to a number.

    Returns:
        The interval, or None below 20 items: there is too little to tell a spread from.
    """
    _level(level)
    if size < TEXTS_FOR_INTERVAL:
        return None
    rng = np.random.default_rng(seed)
    whole = statistic(np.arange(size))
    halves = [statistic(np.sort(rng.permutation(size)[: size // 2])) for _ in range(resamples)]
    scale = whole / np.mean(halves) if np.mean(halves) else 1.0
    half_width = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(halves, ddof=1) * scale)
    return max(0.0, float(whole - half_width)), float(whole + half_width)


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
        raise UserError(f"{wins} wins out of {n} is no rate; give 0 <= wins <= n and n of at least 1.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, spread = wins / n, z * math.sqrt(wins * (n - wins) / n + z * z / 4) / (n + z * z)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def query_efficiency(
    calls_by_role: Mapping[str, int],
    accepted_rows: int | Sequence[int],
    calls_per_seed: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Calls spent for what was accepted, and their share of what Evol-Instruct spent.

    Read both: `share_of_baseline_total` also falls when the dataset is merely smaller, the share per row does not.

    Args:
        calls_by_role: As `ledger_calls` counts them.
        accepted_rows: How many rows; or how many of each seed, which gives `calls_per_row_interval` (seeds resampled).
        calls_per_seed: Calls of each seed, for that interval; left out: as if each seed had cost the same.
    """
    per_seed = None if isinstance(accepted_rows, int) else np.asarray(accepted_rows, float)
    rows = accepted_rows if per_seed is None else int(per_seed.sum())
    if rows < 1 or any(calls < 0 for calls in calls_by_role.values()):
        raise UserError(f"{rows} rows from calls {dict(calls_by_role)}: need one row or more, no negative count.")
    calls = sum(calls_by_role.values())
    found = {
        "calls": calls,
        "accepted_rows": rows,
        "calls_per_row": calls / rows,
        "calls_per_row_by_role": {role: made / rows for role, made in sorted(calls_by_role.items())},
        "share_of_baseline_per_row": calls / rows / (EVOL_INSTRUCT_CALLS / EVOL_INSTRUCT_ROWS),
        "share_of_baseline_total": calls / EVOL_INSTRUCT_CALLS,
    }
    if per_seed is not None:
        spent = np.full(len(per_seed), calls / len(per_seed)) if calls_per_seed is None else np.asarray(calls_per_seed)
        _aligned(list(per_seed), list(spent), "counts of calls")
        found["calls_per_row_interval"] = _ratio_interval(spent, per_seed, seed)
    return found


def ledger_calls(path: str | Path) -> dict[str, int]:
    """Calls by role of the ledger at `path` (the file, or the folder that holds ledger.sqlite).

    Raises:
        UserError: There is no ledger.
    """
    return {role: totals["calls"] for role, totals in report(path)["roles"].items() if role != "all"}


def _ratio_interval(calls: np.ndarray, rows: np.ndarray, seed: int) -> Interval:
    """Bootstrap interval of sum(calls) / sum(rows), resampled together; without end where a resample has no row."""
    pairs = np.stack([rows, calls], axis=1)
    low, high = bootstrap_interval(pairs, lambda drawn: drawn[:, 0].sum() / max(drawn[:, 1].sum(), 1), seed=seed)
    return 1 / high if high else math.inf, 1 / low if low else math.inf


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _sentences(text: str) -> list[str]:
    return [piece for piece in re.split(r"[.!?]+(?:\s|$)|\n+", text) if _words(piece)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _ngrams(words: list[str], n: int) -> list[str]:
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]


def _some(items, name: str, least: int = 1):
    if len(items) < least:
        raise UserError(f"Got {len(items)} {name}; this measure needs at least {least}.")
    return items


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise UserError(f"Embeddings have shape {vectors.shape}; they must have two dimensions, (texts, features).")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        row = int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))[0])
        raise UserError(f"Embedding {row} is zero or not finite, so it has no direction; drop that text.")
    return vectors / norms


def _level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie between 0 and 1, such as 0.95.")
