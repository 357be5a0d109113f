"""Bounds without a call: in go a method's settings, its operations and the seeds, out come the least and most calls.

No run leaves the bounds of calls and rows, unless a server has to be asked again. Those of tokens are estimates: a
token for four bytes of the prompts, as they are written for these seeds and may grow, and for each answer from one to
the most that it may have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...environment.review import reviewing_of
from ...environment.rewriting import edits_asked
from ...models.base import Generator, Request, asked_in_batches
from ...models.budget import Price
from ...text.edits import MAX_TOKENS, tries
from ...types import Role, Seed, Tier
from ..config import PLANNED
from ..evolution import Evolution
from .intervals import ALL, AMOUNTS, Forecast, Range
from .requests import answer_sample, judge_of, paid_sample, rewrite_sample, verdict_sample, walker_of

BYTES = 4  # Of a text, for a token.
MOST_SAMPLES = 200  # Seeds whose prompts are measured.


@dataclass(frozen=True)
class _Calls:
    """Calls of one kind over all seeds.

    `least` and `most` are their numbers. `samples` are possible requests, a list for each measured seed. The most that
    a prompt may hold beside these is what `texts` texts have gained in a chain, and `answers` answers.
    """

    role: Role
    generator: Generator
    least: int
    most: int
    samples: Sequence[Sequence[Request]]
    texts: int = 0
    answers: int = 0

    def tokens(self, growth: int, longer: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Tokens of the prompts and of the answers, each the fewest and the most."""
        sizes = [[_bytes(request) / BYTES for request in requests] or [0.0] for requests in self.samples]
        least, most = (sum(map(end, sizes)) / len(sizes) for end in (min, max))
        limits = [request.sampling.max_tokens for requests in self.samples for request in requests]
        answer = longer * max(limits, default=0)
        prompts = self.least * least, self.most * (most + self.texts * growth + self.answers * answer)
        return prompts, (self.least, self.most * answer)


def bounds(evolver: Evolution, seeds: Sequence[Seed], prices: Mapping[str, Price]) -> Forecast:
    """The least and the most that evolving `seeds` can take and give."""
    kinds = list(_planned(evolver, seeds) if evolver.args.method in PLANNED else _stepwise(evolver, seeds))
    # The answer that was cut and the one with twice the tokens: three times as many for two calls.
    growth, longer = _growth(evolver, seeds[0]), 1.5 if evolver.args.retry_cut else 1.0
    ranges = [(kind.role, _ranges(kind, growth, longer, prices)) for kind in kinds]
    spent: dict[str, dict[str, Range]] = {}
    for role in (*dict.fromkeys(kind.role for kind in kinds), ALL):
        columns = zip(*(found for one, found in ranges if role in (one, ALL)), strict=True)
        sums = [Range(sum(r.low for r in column), sum(r.high for r in column)) for column in columns]
        spent[role] = {name: r if name == "cost" else r.whole for name, r in zip(AMOUNTS, sums, strict=True)}
    return Forecast(len(seeds), 0, 1.0, Range(0, len(seeds) * _most_rows(evolver)), spent)


def _stepwise(evolver: Evolution, seeds: Sequence[Seed]) -> Iterator[_Calls]:
    """The kinds of calls where each operation is paid for."""
    steps, again = len(seeds) * evolver.args.operations_per_episode, _again(evolver)
    judge, reviewer = judge_of(evolver)
    yield _walk(evolver, seeds, again)
    yield from _answers(evolver, seeds, steps)
    verdicts = steps * (again if judge == Role.JUDGE else len(reviewing_of(reviewer).questions))
    yield _Calls(judge, reviewer, 0, verdicts, [[verdict_sample(evolver, seed)] for seed in _some(seeds)], 2)


def _planned(evolver: Evolution, seeds: Sequence[Seed]) -> Iterator[_Calls]:
    """The kinds of calls where chains are walked first and plans are paid for."""
    args, some, again = evolver.args, _some(seeds), _again(evolver)
    rows = _most_rows(evolver)
    plans, size = len(seeds) * rows, args.pack_size
    yield _walk(evolver, seeds, 1)
    reviews = (len(seeds) * args.operations_per_episode + plans) * len(reviewing_of(evolver.reviewer).questions)
    yield _Calls(Role.REVIEWER, evolver.reviewer, 0, reviews, [[verdict_sample(evolver, seed)] for seed in some], 2)
    paid = [[paid_sample(evolver, some[start : start + size])] for start in range(0, len(some), size)]
    # Plans of edits and others are packed apart, so that two packs of a group may be filled in part.
    packs = sum(min(len(group) * rows, -(-len(group) * rows // size) + 1) for group in evolver.groups(seeds))
    first = packs * (again if size == 1 else 1)
    yield _Calls(Role.EXPERT, evolver.expert, 0, first + args.row_retries * plans * again, paid)
    yield from _answers(evolver, seeds, plans)


def _answers(evolver: Evolution, seeds: Sequence[Seed], most: int) -> Iterator[_Calls]:
    """Calls for answers alone, and for those again that keep a constraint which code can check."""
    args, proofs = evolver.args, any(operation.proof for operation in evolver.operations)
    about = [[answer_sample(evolver, seed)] for seed in _some(seeds)]
    if proofs or not args.answered_in_walk or args.method not in PLANNED:
        yield _Calls(Role.EXPERT, evolver.expert, 0, most * _again(evolver), about, 1)
    if proofs:
        retries = most * args.answer_retries * _again(evolver)
        yield _Calls(Role.EXPERT, evolver.expert, 0, retries, about, 1, 1)


def _walk(evolver: Evolution, seeds: Sequence[Seed], again: int) -> _Calls:
    """Calls for single operations: a chain that gets nowhere may ask a single one, or none if the chooser ends it."""
    args, (role, walker) = evolver.args, walker_of(evolver)
    steps, ends = args.operations_per_episode, args.stop_below is not None
    every = [[rewrite_sample(evolver, seed, one) for one in evolver.operations] for seed in _some(seeds)]
    samples = [[request for request in requests if request is not None] for requests in every]
    silent = any(None in requests for requests in every)
    least = 0 if ends or silent else steps if args.method == "evol_instruct" else 1
    asked = [tries(one.edits) for one in evolver.operations if edits_asked(one, seeds[0].text, walker)]
    return _Calls(role, walker, len(seeds) * least, len(seeds) * steps * max(asked, default=1) * again, samples, 1)


def _most_rows(evolver: Evolution) -> int:
    """Most rows that come of one seed: one a step, or one a plan."""
    steps, length = evolver.args.operations_per_episode, evolver.args.plan_length
    if evolver.args.method not in PLANNED:
        return steps
    return -(-steps // length) if length else 1


def _again(evolver: Evolution) -> int:
    return 2 if evolver.args.retry_cut else 1


def _growth(evolver: Evolution, seed: Seed) -> int:
    """Most tokens that a text can gain in a chain, about: by edits a few a step, by whole rewrites those of one."""
    _, walker = walker_of(evolver)
    if all(edits_asked(operation, seed.text, walker) for operation in evolver.operations):
        return evolver.args.operations_per_episode * 2 * MAX_TOKENS
    return evolver.args.max_tokens


def _some(seeds: Sequence[Seed]) -> Sequence[Seed]:
    """Seeds from all over the source, at most `MOST_SAMPLES`."""
    return seeds[:: -(-len(seeds) // MOST_SAMPLES)]


def _ranges(kind: _Calls, growth: int, longer: float, prices: Mapping[str, Price]) -> list[Range]:
    """The ranges of `AMOUNTS`."""
    (prompt, most_prompt), (answer, most_answer) = kind.tokens(growth, longer)
    price = prices.get(kind.generator.model, Price())
    price = price.at(Tier.BATCH) if asked_in_batches(kind.generator) else price
    costs = price.of(int(prompt), int(answer)), price.of(int(most_prompt), int(most_answer))
    pairs = (kind.least, kind.most), (prompt, most_prompt), (answer, most_answer), costs
    return [Range(*pair) for pair in pairs]


def _bytes(request: Request) -> int:
    return sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)
