"""Measures of a set of instructions: in come texts, embeddings or counts, out come numbers and their intervals.

Set measures depend on the number of texts: compare sets of equal size. Judge a learned policy under an embedding that
its reward did not use. The default here compares words, as rule-based rewards do, so name a sentence embedding.
`metrics/` holds the same measures as modules of the `evaluate` library.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..models.accounting import EVOL_INSTRUCT_CALLS, EVOL_INSTRUCT_ROWS, report
from ..text.operations import OPERATIONS, Operation
from ..text.rules import response_violations, violations
from .embeddings import Embed, hashed_embeddings, unit_rows
from .intervals import Interval, at_least, bootstrap_interval, half_sample_interval, wilson_interval
from .readability import flesch_kincaid_grade, mtld, sentences_of, words_of

# Set measures compare at most this many texts: the time for eigenvalues grows with the cube, more would take minutes.
MOST_EMBEDDED = 2_048


def vendi_score(embeddings: np.ndarray) -> float:
    """Effective number of different texts (arXiv 2210.02410): 1 for copies, N for N orthogonal rows.

    The exponential of the entropy of the eigenvalues of EᵀE/N, with E of shape (N, D) scaled to rows of length 1.
    """
    unit = unit_rows(at_least(embeddings, "embeddings"))
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
    unit = unit_rows(at_least(embeddings, "embeddings", 2)).astype(np.float64)
    return _mean_distance(np.square(unit.sum(axis=0)).sum(), len(unit))


def _mean_distance(sum_of_cosines: float, n: int) -> float:
    return float(1 - (sum_of_cosines - n) / (n * (n - 1)))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different word n-grams per n-gram over the whole set: 1 when none is used twice. Falls as a set grows."""
    grams = list(chain.from_iterable(_ngrams(words_of(text), n) for text in at_least(texts, "texts")))
    return len(set(grams)) / len(at_least(grams, f"texts of {n} or more words"))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes per zlib-compressed byte of the joined texts: higher is more repetitive. zlib looks back 32 KiB only."""
    raw = _bytes("\n".join(at_least(texts, "texts")))
    return len(raw) / len(zlib.compress(raw, 9))


def self_repetition(texts: Sequence[str], n: int = 4) -> float:
    """Mean over texts of log(1 + how often their word n-grams occur in other texts, once per text): 0 when never."""
    grams = [set(_ngrams(words_of(text), n)) for text in at_least(texts, "texts")]
    holders = Counter(chain.from_iterable(grams))
    return sum(math.log1p(sum(holders[gram] - 1 for gram in held)) for held in grams) / len(grams)


def novelty(texts: Sequence[str], references: Sequence[str], embed: Embed = hashed_embeddings) -> np.ndarray:
    """1 - cosine to the nearest of `references`, per text: floats of shape (len(texts),); 0 for a copy."""
    ours = unit_rows(embed(at_least(texts, "texts")))
    theirs = unit_rows(embed(at_least(references, "references")))
    nearest = [(ours[i : i + 1024] @ theirs.T).max(axis=1) for i in range(0, len(ours), 1024)]
    return np.maximum(1 - np.concatenate(nearest), 0)


def diversity_measures(
    texts: Sequence[str], embed: Embed = hashed_embeddings, seed: int = 0, resamples: int = 50
) -> dict[str, Any]:
    """Set measures of diversity, each with `<name>_interval`: Vendi score, mean pairwise distance, distinct-1, ...

    All of them depend on the number of texts: compare sets of equal size. The Vendi score and the mean pairwise
    distance embed texts. Of more than 2,048 texts they use 2,048, sampled with `seed`; `embedded_rows` says how many.
    """
    cosines = _cosines(unit_rows(embed(_drawn(at_least(texts, "texts", 2), seed))))
    several = [text for text in texts if len(words_of(text)) > 1]
    wordy = [text for text in texts if words_of(text)]
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
        of_rows = partial(_measure_of_rows, measure, items)
        found[f"{name}_interval"] = half_sample_interval(len(items), of_rows, seed, resamples)
    return found


def _drawn(texts: Sequence[str], seed: int) -> list[str]:
    """The texts, or `MOST_EMBEDDED` of them in their order."""
    if len(texts) <= MOST_EMBEDDED:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), MOST_EMBEDDED, replace=False)
    return [texts[row] for row in sorted(rows)]


def _measure_of_rows(measure: Callable[[Any], float], items: Any, rows: np.ndarray) -> float:
    """The measure of some of the items; of a square matrix of cosines, of their rows and columns."""
    return measure(items[np.ix_(rows, rows)] if isinstance(items, np.ndarray) else [items[i] for i in rows])


def complexity_measures(texts: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """How hard texts are to read, with intervals: words, words per sentence, Flesch-Kincaid grade, MTLD of the set.

    `words` measures length, not difficulty, so that a comparison can control for it; the others don't grow when a text
    is repeated. A reading grade says nothing about how hard a task is to solve.
    """
    words = [words_of(text) for text in texts]
    sentences = [max(1, len(sentences_of(text))) for text in texts]
    wordy = [text for text in texts if words_of(text)]
    samples: dict[str, list[float]] = {
        "words": [len(row) for row in words],
        "words_per_sentence": [len(row) / count for row, count in zip(words, sentences)],
        "flesch_kincaid_grade": [flesch_kincaid_grade(text) for text in at_least(wordy, "texts with words")],
    }
    found: dict[str, Any] = {"rows": len(texts)}
    for name, values in samples.items():
        found[name] = float(np.mean(values))
        found[f"{name}_interval"] = bootstrap_interval(values, seed=seed)

    def variety(rows: np.ndarray) -> float:
        return mtld(list(chain.from_iterable(words[i] for i in rows)))

    found["mtld"] = variety(np.arange(len(words)))
    found["mtld_interval"] = half_sample_interval(len(words), variety, seed)
    return found


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
    """Shares of rewrites (and responses) that break no elimination rule, with Wilson intervals, and counts by rule.

    The rules find broken texts, not poor ones: a response may pass all rules and be wrong.

    Args:
        rewrites: N texts.
        instructions: The N texts before the rewrite.
        responses: N responses to the rewrites, or none.
        operations: Operations whose own wording a rewrite must not repeat.
    """
    _aligned(rewrites, instructions, "instructions")
    broken = [_violations(*pair, operations) for pair in zip(instructions, rewrites)]
    found: dict[str, Any] = {"rows": len(rewrites)} | _shares("valid_instructions", broken)
    if len(responses):
        _aligned(rewrites, responses, "responses")
        found |= _shares("valid_responses", [response_violations(text) for text in responses])
    return found


def _violations(instruction: str, rewrite: str, operations: Sequence[Operation]) -> tuple[str, ...]:
    # Which operation was carried out is not known, so the rules of single ones do not apply.
    return violations(instruction, rewrite, tuple(operations) if len(operations) > 1 else None)


def _shares(name: str, broken: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    passed = sum(not rules for rules in broken)
    return {
        name: passed / len(broken),
        f"{name}_interval": wilson_interval(passed, len(broken)),
        f"{name}_rules": dict(sorted(Counter(chain.from_iterable(broken)).items())),
    }


def _aligned(texts: Sequence[Any] | np.ndarray, others: Sequence[Any] | np.ndarray, name: str) -> None:
    if len(at_least(texts, "texts")) != len(others):
        raise UserError(f"Got {len(texts)} texts but {len(others)} {name}; give one for each text.")


def instruction_measures(
    texts: Sequence[str], references: Sequence[str] = (), embed: Embed = hashed_embeddings, seed: int = 0
) -> dict[str, Any]:
    """Length, diversity and (when there are `references` to compare with) novelty of one set, with intervals."""
    lengths = [len(words_of(text)) for text in at_least(texts, "texts", 2)]
    measures = {"words": float(np.mean(lengths)), "words_interval": bootstrap_interval(lengths, seed=seed)}
    measures |= diversity_measures(texts, embed, seed)
    return measures | (novelty_measures(texts, references, embed, seed) if len(references) else {})


def query_efficiency(
    calls_by_role: Mapping[str, int],
    accepted_rows: int | Sequence[int],
    calls_per_seed: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Calls per accepted row, and their share of the calls of Evol-Instruct.

    Read both shares: `share_of_baseline_total` also falls when the dataset is merely smaller, the other does not.

    Args:
        calls_by_role: As `ledger_calls` counts them.
        accepted_rows: Number of rows; or the number per seed, which adds `calls_per_row_interval` (seeds resampled).
        calls_per_seed: Calls of each seed, for that interval; by default all seeds cost the same.
    """
    per_seed = None if isinstance(accepted_rows, int) else np.asarray(accepted_rows, float)
    rows = accepted_rows if isinstance(accepted_rows, int) else int(sum(accepted_rows))
    if rows < 1 or any(calls < 0 for calls in calls_by_role.values()):
        raise UserError(f"{rows} rows from calls {dict(calls_by_role)}: need one row or more, no negative count.")
    calls = sum(calls_by_role.values())
    found: dict[str, Any] = {
        "calls": calls,
        "accepted_rows": rows,
        "calls_per_row": calls / rows,
        "calls_per_row_by_role": {role: made / rows for role, made in sorted(calls_by_role.items())},
        "share_of_baseline_per_row": calls / rows / (EVOL_INSTRUCT_CALLS / EVOL_INSTRUCT_ROWS),
        "share_of_baseline_total": calls / EVOL_INSTRUCT_CALLS,
    }
    if per_seed is not None:
        spent = np.full(len(per_seed), calls / len(per_seed)) if calls_per_seed is None else np.asarray(calls_per_seed)
        _aligned(per_seed, spent, "counts of calls")
        found["calls_per_row_interval"] = _ratio_interval(spent, per_seed, seed)
    return found


def ledger_calls(path: str | Path) -> dict[str, int]:
    """Calls by role of the ledger at `path` (the file, or the folder that holds ledger.sqlite).

    Raises:
        UserError: There is no ledger.
    """
    return {role: totals["calls"] for role, totals in report(path)["roles"].items() if role != "all"}


def _ratio_interval(calls: np.ndarray, rows: np.ndarray, seed: int) -> Interval:
    """Bootstrap interval of sum(calls) / sum(rows), by seed; the upper end is infinite if a resample has no row."""

    def rows_per_call(rows: np.ndarray, calls: np.ndarray, axis: int = -1) -> np.ndarray:
        return rows.sum(axis) / np.maximum(calls.sum(axis), 1)

    low, high = bootstrap_interval((rows, calls), rows_per_call, seed=seed, paired=True)
    return 1 / high if high else math.inf, 1 / low if low else math.inf


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _ngrams(words: list[str], n: int) -> list[str]:
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
