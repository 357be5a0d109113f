"""Counts of a dataset: in go results, seed by seed, out come the numbers and sampled chains of its card."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..text.words import count_words, words
from ..types import CallKind, Candidate, Example, Rejection

RULEBOOK = "rulebook"


class DatasetStatistics:
    """Counts and samples for a dataset's card, gathered seed by seed, in constant memory.

    Args:
        chains: Number of chains in the sample: of the seeds that led to a row, those whose ids have the lowest hashes,
            so that neither timing nor the order of seeds matters.
        paid: Kinds of calls that the expert answers.
    """

    def __init__(self, chains: int = 10, paid: Sequence[CallKind] = (CallKind.REWRITE, CallKind.ANSWER)):
        self.rows = self.seeds = 0
        self.rejections: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.operations_by_step: dict[str, Counter[int]] = {}
        self.new_words: dict[int, list[float]] = {}
        self.words: dict[str, Counter[int]] = {"instruction": Counter(), "response": Counter()}
        self.verifiers: dict[str, Counter[str]] = {}
        self.rulebook = False
        self._most_chains, self._paid = chains, tuple(paid)
        self._chains: list[tuple[bytes, dict[str, Any]]] = []

    def add(self, results: Sequence[Example | Rejection]) -> None:
        """Count the results of one seed."""
        self.seeds += 1
        for result in results:
            self.calls.update(dict(result.candidate.calls))
            self.rulebook |= RULEBOOK in (result.candidate.transition.rewriter, result.candidate.responder)
            self._count_verified(result.candidate)
            if isinstance(result, Rejection):
                self.rejections[result.reason] += 1
        rows = [result.candidate for result in results if isinstance(result, Example)]
        for row in rows:
            self.rows += 1
            self.operations[row.transition.operation] += 1
            self.operations_by_step.setdefault(row.transition.operation, Counter())[row.step] += 1
            share = self.new_words.setdefault(row.step, [0, 0.0])
            share[:] = share[0] + 1, share[1] + _novelty(row.transition.instruction, row.transition.rewrite)
            self.words["instruction"][count_words(row.transition.rewrite).bit_length()] += 1
            self.words["response"][count_words(row.response).bit_length()] += 1
        if rows:
            self._sample(rows)

    @property
    def chains(self) -> list[dict[str, Any]]:
        """The sample: of each chain its seed, its steps that became rows, and the answer to the last."""
        return [chain for _, chain in self._chains]

    def summary(self) -> dict[str, Any]:
        """Rows, rejections by reason, calls by kind and row, verifiers by kind, operations and lengths of rows."""
        paid = sum(self.calls[kind] for kind in self._paid)
        return {
            "seeds": self.seeds,
            "rows": self.rows,
            "rejections": dict(sorted(self.rejections.items())),
            "calls": {kind: self.calls[kind] for kind in CallKind},
            "expert_calls_per_row": round(paid / self.rows, 3) if self.rows else None,
            "verifiers": {id: dict(counts) for id, counts in sorted(self.verifiers.items())},
            "operations": dict(sorted(self.operations.items())),
            "operations_by_step": {
                name: {str(step + 1): counts[step] for step in sorted(counts)}
                for name, counts in sorted(self.operations_by_step.items())
            },
            "novelty_by_step": {
                str(step + 1): round(total / rows, 3) for step, (rows, total) in sorted(self.new_words.items())
            },
            "words": {
                name: {span(bits): counts[bits] for bits in sorted(counts)} for name, counts in self.words.items()
            },
        }

    def _count_verified(self, candidate: Candidate) -> None:
        """Of each kind of verifier: answers that were checked, and that passed at first and in the end."""
        for one, passed in zip(candidate.transition.verifiers, candidate.verified):
            counts = self.verifiers.setdefault(one.id, Counter(answers=0, passed_at_first=0, passed=0))
            counts.update(answers=1, passed_at_first=one.id not in candidate.failed_first, passed=passed)

    def _sample(self, rows: Sequence[Candidate]) -> None:
        key = hashlib.blake2b(rows[0].seed.id.encode(), digest_size=8).digest()
        if len(self._chains) == self._most_chains and (not self._chains or key >= self._chains[-1][0]):
            return
        steps = [(row.transition.operation, row.transition.rewrite) for row in rows]
        self._chains.append((key, {"seed": rows[0].seed.text, "steps": steps, "response": rows[-1].response}))
        self._chains.sort(key=lambda kept: kept[0])
        del self._chains[self._most_chains :]


def _novelty(before: str, after: str) -> float:
    """The share of a text's different words that the text before did not have.

    >>> _novelty("Name a bird.", "Name a bird in Peru.")
    0.4
    """
    found, known = set(words(after)), set(words(before))
    return len(found - known) / len(found) if found else 0.0


def span(bits: int) -> str:
    """The range of numbers with `bits` binary digits.

    >>> [span(bits) for bits in range(4)]
    ['0', '1', '2-3', '4-7']
    """
    low, high = 2**bits // 2, 2**bits - 1
    return str(high) if low == high or not bits else f"{low}-{high}"
