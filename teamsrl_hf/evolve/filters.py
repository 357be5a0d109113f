"""Row filters: in goes a candidate, out comes a reason to reject it, or None.

Each filter is a function of a candidate, for `DatasetEvolver(filters=...)`. It is called before there is an answer,
and once more with the answer, since only that can break some limits.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..text.tables import ENDINGS, read_table
from ..text.words import LONG_WIDTH, count_words, normalise, units, width
from ..types import Candidate, Reason

Filter = Callable[[Candidate], str | None]
# Columns that hold the question in the benchmarks people use, for specifications that name none.
QUESTIONS = ("question", "instruction", "prompt", "problem", "query", "text", "input")
# Macrolanguages of ISO 639-3: in writing, their members are told apart by chance (plain Chinese as Wu or Cantonese).
_MACROLANGUAGES = (
    *(("ar", "ary", "arz"), ("bs", "hr", "sr"), ("id", "ms"), ("ku", "sdh"), ("nn", "no"), ("uz", "uzs")),
    ("wuu", "yue", "zh"),
)
_SOME_LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "pt", "zh")
_LONGEST = 64  # Words of an n-gram, at most.
# Odd, random, one for each place in an n-gram. In some scripts each word takes several places.
_PLACES = np.random.default_rng(20).integers(1 << 62, size=int(_LONGEST * LONG_WIDTH), dtype=np.uint64)
_PLACES = _PLACES * np.uint64(2) + np.uint64(1)


def length_limits(min_words: int = 0, max_words: int | None = None, max_response_words: int | None = None) -> Filter:
    """Rejects instructions and answers by their number of words, see `words.count_words`; None is no limit.

    The reasons are `too_short`, `too_many_words` and `answer_too_long`.

    >>> from teamsrl_hf.types import Candidate, Review, Seed, Transition
    >>> step = Transition("Name a bird.", "deepen", "Name two birds.", Review("not_equal"), "m")
    >>> candidate = Candidate("r1", Seed("s1", "Name a bird."), "s1", 0, ("deepen",), step)
    >>> length_limits(max_words=2)(candidate), length_limits(max_words=3)(candidate)
    ('too_many_words', None)

    Raises:
        UserError: A limit is negative, or no text could meet both.
    """
    limits = {"min_words": min_words, "max_words": max_words, "max_response_words": max_response_words}
    for name, limit in limits.items():
        if limit is not None and limit < 0:
            raise UserError(f"{name} is {limit}, wanted a number of words from 0 up; correct it.")
    if max_words is not None and min_words > max_words:
        raise UserError(f"min_words is {min_words} and max_words {max_words}; no text meets both, change one.")

    def filter(candidate: Candidate) -> str | None:
        words = count_words(candidate.transition.rewrite)
        if words < min_words:
            return Reason.TOO_SHORT
        if max_words is not None and words > max_words:
            return Reason.TOO_MANY_WORDS
        if max_response_words is not None and count_words(candidate.response) > max_response_words:
            return Reason.ANSWER_TOO_LONG
        return None

    return filter


def language(allowed: Sequence[str], confidence: float = 0.3) -> Filter:
    """Rejects instructions that are surely in another language, as `other_language`; answers are free ("Translate…").

    A text is rejected only where py3langid gives one other language at least the probability `confidence`; short
    texts, code and formulas leave it undecided. Measured with ["en"]: of 492 instructions 2 are rejected, one in
    German and one that is mostly Dutch; of 40 short ones in eight other languages, 39. A text takes 0.1 to 0.2 ms. An
    instruction that is mainly a quotation in another language is rejected too.

    Args:
        allowed: ISO 639-1 codes, such as ["en", "de"]. Languages of one macrolanguage count as one, such as "id" and
            "ms".

    Raises:
        UserError: py3langid is not installed, or does not know a code.
    """
    identifier = _identifier()
    codes = {allowed} if isinstance(allowed, str) else set(allowed)
    if not codes or not codes <= set(identifier.labels):
        unknown = ", ".join(sorted(codes - set(identifier.labels))) or "none given"
        raise UserError(f"Unknown language: {unknown}; use ISO 639-1 codes such as {', '.join(_SOME_LANGUAGES)}.")
    codes |= {code for kin in _MACROLANGUAGES if not codes.isdisjoint(kin) for code in kin}
    codes |= {"zxx"}  # What is no language at all.

    def filter(candidate: Candidate) -> str | None:
        text = candidate.transition.rewrite
        if not any(map(str.isalpha, text)):
            return None
        others = (probability for code, probability in identifier.rank(text) if code not in codes)
        return Reason.OTHER_LANGUAGE if max(others, default=0.0) >= confidence else None

    return filter


@lru_cache(maxsize=1)
def _identifier():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError("Recognising languages needs py3langid; pip install 'teamsrl-hf[quality]'.") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Decontamination:
    """Rejects candidates that repeat a benchmark's test set, as `contaminated`, and counts them by benchmark.

    A candidate is contaminated if its instruction or its answer shares `ngram` words in a row with a text of a
    benchmark, in any case and punctuation. Of a text shorter than that `short` words in a row suffice, and one shorter
    than `short` is met only by an instruction or answer of just these words. With `embed`, an instruction is
    contaminated also if the cosine of its embedding with that of a benchmark's text is at least `threshold`.

    Args:
        benchmarks: Texts by name of the benchmark. Each distinct n-gram takes 10 bytes, each text with `embed` 4 D.
        ngram: Words in a row (13 since GPT-3's paper).
        short: The same for texts of fewer than `ngram` words.
        embed: Function from texts to an array of shape (N, D), such as `SentenceTransformer(...).encode`. In use it
            gets one text at a time, in the order of the seeds.
        threshold: Least cosine of two texts that count as the same.

    Attributes:
        texts: Number of texts by benchmark.
        matches: Number of candidates rejected for it, by benchmark.

    Raises:
        UserError: A benchmark has no text, or a number is out of range.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, Iterable[str]],
        ngram: int = 13,
        short: int = 8,
        embed: Callable[[list[str]], np.ndarray] | None = None,
        threshold: float = 0.95,
    ):
        if not 1 <= short <= ngram <= _LONGEST:
            raise UserError(f"ngram is {ngram} and short {short}, wanted 1 <= short <= ngram <= {_LONGEST}.")
        if not 0 < threshold <= 1:
            raise UserError(f"The cosine threshold is {threshold}, wanted more than 0 and at most 1.")
        self.ngram, self.short, self.threshold = ngram, short, threshold
        self.texts: dict[str, int] = {}
        self._vectors: dict[str, np.ndarray] = {}
        hashes: dict[int, list[tuple[np.ndarray, int]]] = {}
        for owner, (name, source) in enumerate(benchmarks.items()):
            texts = [text for text in source if normalise.__wrapped__(text)]
            if not texts:
                raise UserError(f"The benchmark {name!r} has no text to compare with; check its column.")
            self.texts[name] = len(texts)
            for n, grams in self._grams(texts):
                hashes.setdefault(n, []).append((grams, owner))
            if embed is not None:
                self._vectors[name] = _unit(embed(texts))
        self._tables = {n: _sorted_together(parts) for n, parts in hashes.items()}
        self.matches = dict.fromkeys(self.texts, 0)
        # The same instruction comes with and without its answer, and embedding is slow.
        if embed is not None:
            self._near = lru_cache(maxsize=16_384)(lambda text: self._nearest(_unit(embed([text]))[0]))

    def __call__(self, candidate: Candidate) -> str | None:
        text = candidate.transition.rewrite
        # The reviewer has normalised the instruction before; answers would crowd its cache.
        met = self._sharing(normalise(text)) | self._sharing(normalise.__wrapped__(candidate.response))
        if self._vectors:
            met |= self._near(text)
        for name in met:
            self.matches[name] += 1
        return Reason.CONTAMINATED if met else None

    def fresh(self) -> "Decontamination":
        """The same benchmarks, not indexed again, with counts at zero: for another run."""
        other = copy.copy(self)
        other.matches = dict.fromkeys(self.texts, 0)
        return other

    def _grams(self, texts: Sequence[str]) -> list[tuple[int, np.ndarray]]:
        """Distinct hashes of n-grams by n; n = 0 stands for whole texts."""
        found: dict[int, list[np.ndarray]] = {}
        for text in texts:
            normal = normalise.__wrapped__(text)
            tokens, wide = _unit_hashes(normal), _width(normal)
            n = next((round(n * wide) for n in (self.ngram, self.short) if len(tokens) >= round(n * wide)), 0)
            found.setdefault(n, []).append(_gram_hashes(tokens, n or len(tokens)))
        return [(n, np.unique(np.concatenate(hashes))) for n, hashes in found.items()]

    def _sharing(self, normal: str) -> set[str]:
        """Names of the benchmarks that a normalised text shares words with."""
        tokens, names, short = _unit_hashes(normal), list(self.texts), round(self.short * _width(normal))
        found: set[str] = set()
        for n, (table, owners) in self._tables.items():
            if not len(tokens) or (n == 0 and len(tokens) >= short):
                continue
            hashes = _gram_hashes(tokens, n or len(tokens))
            places = np.searchsorted(table, hashes)
            shared = hashes[table[places % len(table)] == hashes]
            for first, stop in zip(np.searchsorted(table, shared), np.searchsorted(table, shared, "right")):
                found |= {names[owner] for owner in owners[first:stop]}
        return found

    def _nearest(self, vector: np.ndarray) -> frozenset[str]:
        return frozenset(
            name for name, vectors in self._vectors.items() if (vectors @ vector).max() >= self.threshold - 1e-6
        )


def load_benchmark(spec: str) -> list[str]:
    """The texts of one column of a benchmark, for `Decontamination`.

    Args:
        spec: "FILE:COLUMN" for a file with one of `tables.ENDINGS`; "SOURCE:CONFIG:SPLIT:COLUMN" for a dataset folder
            or a Hub id, such as "openai/gsm8k:main:test:question". What is left out or empty is the default config,
            the split "test", and the first column there is of `QUESTIONS`.

    Raises:
        UserError: One line: there is no such source, config, split or column, or it holds no text.
    """
    source, *parts = [spec] if os.path.exists(spec) else spec.split(":")
    if os.path.isfile(os.path.expanduser(source)) or os.path.splitext(source)[1].lower() in ENDINGS:
        config, split, column = "", "train", ":".join(parts)
    else:
        config, split, column = (*parts, "", "", "")[:3]
    table = read_table(source, [column] if column else QUESTIONS, split or "test", config or None)
    column = column or next((name for name in QUESTIONS if name in table.columns), QUESTIONS[0])
    if column not in table.columns:
        raise UserError(
            f"The benchmark {spec} has no column {column!r}, only {', '.join(table.columns)}; name one of them as "
            f"{source}:COLUMN (a file) or {source}:CONFIG:SPLIT:COLUMN."
        )
    if table.broken:
        raise table.broken[0]
    texts = [row[column] for _, row in table.rows if row.get(column)]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"The benchmark {spec} has no texts in {column!r}; name a column of strings.")
    return texts


def _width(normal: str) -> float:
    """Units that make a word in the script which most of a normalised text is in."""
    if normal.isascii():
        return 1.0
    counts: dict[float, int] = {}
    for token in normal.split():
        wide = width(token)
        counts[wide] = counts.get(wide, 0) + (len(token) if wide > 1 else 1)
    return max(counts, key=counts.__getitem__, default=1.0)


def _unit_hashes(normal: str) -> np.ndarray:
    tokens = units(normal)
    return np.fromiter(map(hash, tokens), np.int64, len(tokens)).view(np.uint64)


def _gram_hashes(tokens: np.ndarray, n: int) -> np.ndarray:
    """A hash of every n tokens in a row, uint64 of shape (max(0, len(tokens) - n + 1),)."""
    count = len(tokens) - n + 1
    sums = np.full(max(0, count), n, np.uint64)
    for place in range(n) if count > 0 else ():
        sums += tokens[place : place + count] * _PLACES[place]
    return sums


def _sorted_together(parts: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """All hashes in order, and whose each is."""
    hashes = np.concatenate([grams for grams, _ in parts])
    owners = np.concatenate([np.full(len(grams), owner, np.uint16) for grams, owner in parts])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], owners[order]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def benchmark_name(spec: str) -> str:
    """What the card calls a benchmark: of a file its name alone, not where it lies on this machine."""
    source = spec if Path(spec).exists() else spec.partition(":")[0]
    return Path(source).name if Path(source).exists() else spec
