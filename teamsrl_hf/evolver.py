"""Evolve seeds into a dataset: in go seeds, a chooser and the models, out come accepted rows and counted rejections.

For each seed a chain is walked: the chooser picks an operation, the expert carries it out, the reviewer judges. What
passed and is not yet in the dataset is answered by the expert and judged once more. Chains overlap in time; whatever
depends on the rows before it is decided in the order of the seeds, so that timing never changes the dataset.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from .dedup import NearDuplicates
from .environment import Chooser, carry_out, next_state, run_async, uniform
from .generation import Completion, Generator, Request, Sampling
from .operations import Operation
from .reviewer import response_violations
from .types import Candidate, Example, Rejection, Seed, State, Transition

Item, Made = TypeVar("Item"), TypeVar("Made")
Decided = tuple[Candidate, str | None]


@dataclass(frozen=True)
class EvolverConfig:
    """How to evolve.

    Attributes:
        operations_per_episode: Operations tried on each seed (paper: 6).
        concurrency: Chains walked, and chains answered, at the same time.
        seed: Seed of the random numbers the chooser draws with.
        dedup_threshold: Similarity to another seed's row from which on a row is a near-duplicate.
        temperature, top_p, max_tokens: How the expert samples (paper's code: 0.7, 0.95, 2048).
    """

    operations_per_episode: int = 6
    concurrency: int = 16
    seed: int = 42
    dedup_threshold: float = 0.7
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048

    def __post_init__(self):
        for name in ("operations_per_episode", "concurrency", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.dedup_threshold <= 1:
            raise ValueError(f"dedup_threshold must lie in (0, 1], not {self.dedup_threshold}.")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens)


class DatasetEvolver:
    """Evolves seeds into rows.

    Args:
        expert: Model that carries out operations and answers. Wrap it with `Ledger.record` to never pay twice.
        reviewer: Model that says whether a rewrite gained anything.
        chooser: Picks operations: `policy.choose`, or one of `baselines.CHOOSERS`.
        operations: What the chooser's indices mean.
        args: See `EvolverConfig`.

    To change which operation comes next override `choose`; to change what is kept, `accept`.
    """

    def __init__(
        self,
        expert: Generator,
        reviewer: Generator,
        chooser: Chooser,
        operations: Sequence[Operation],
        args: EvolverConfig = EvolverConfig(),
    ):
        self.expert, self.reviewer, self.chooser = expert, reviewer, chooser
        self.operations, self.args = tuple(operations), args
        self._accepted = NearDuplicates(args.dedup_threshold)

    def choose(self, state: State, seed: Seed) -> Operation:
        """The next operation of a chain. Must depend on its arguments alone, or runs can't be repeated."""
        u = uniform("evolve", self.args.seed, seed.id, state.step)
        return self.operations[self.chooser([state], [u])[0]]

    def accept(self, candidate: Candidate) -> str | None:
        """Why an unanswered candidate is rejected, or None to keep it. Called in the order of seeds and steps."""
        reason = candidate.transition.review.reason
        if reason is None and not self._accepted.add(candidate.transition.rewrite, candidate.seed.id):
            return "near_duplicate"
        return reason

    def evolve(self, seeds: Iterable[Seed]) -> Iterator[list[Example | Rejection]]:
        """For each seed, in order, what became of every step of its chain."""
        stream = self.stream(seeds)
        try:
            while (results := run_async(anext(stream, None))) is not None:
                yield results
        finally:
            run_async(stream.aclose())

    async def stream(self, seeds: Iterable[Seed]) -> AsyncIterator[list[Example | Rejection]]:
        """As `evolve`, for code that is asynchronous itself."""
        async with (
            aclosing(in_order(self._walk, _iterate(seeds), self.args.concurrency)) as walked,
            aclosing(in_order(self._answer_chain, self._decide(walked), self.args.concurrency)) as answered,
        ):
            async for results in answered:
                yield results

    async def _walk(self, seed: Seed) -> list[Candidate]:
        state, texts, parent_id, path = State(seed.text), [seed.text], seed.id, ()
        candidates = []
        for step in range(self.args.operations_per_episode):
            operation = self.choose(state, seed)
            transition = await carry_out(
                texts, operation, self.expert, self.reviewer, self.args.sampling, role="expert"
            )
            candidate = _candidate(seed, parent_id, step, (*path, operation.name), transition)
            candidates.append(candidate)
            if transition.review.passed:
                texts.append(transition.rewrite)
                parent_id, path = candidate.id, candidate.operations
            state = next_state(state, transition)
        return candidates

    async def _decide(self, chains: AsyncIterable[list[Candidate]]) -> AsyncIterator[list[Decided]]:
        async for candidates in chains:
            yield [(candidate, self.accept(candidate)) for candidate in candidates]

    async def _answer_chain(self, chain: list[Decided]) -> list[Example | Rejection]:
        return list(await asyncio.gather(*(self._answer(candidate, reason) for candidate, reason in chain)))

    async def _answer(self, candidate: Candidate, reason: str | None) -> Example | Rejection:
        if reason is not None:
            return Rejection(candidate, reason)
        question = ({"role": "user", "content": candidate.transition.rewrite},)
        completion = await self.expert(Request("expert", question, self.args.sampling))
        answered = _answered(candidate, completion)
        if completion.error:
            return Rejection(answered, "call_failed")
        violations = response_violations(completion.text, completion.finish_reason)
        return Rejection(answered, violations[0]) if violations else Example(answered)


async def in_order(
    function: Callable[[Item], Awaitable[Made]], items: AsyncIterable[Item], concurrency: int
) -> AsyncIterator[Made]:
    """Apply `function` to `items`, up to `concurrency` at once, and yield results in the order of the items.

    A slow one holds back only those behind it that are more than eight times `concurrency` away.
    """
    free = asyncio.Semaphore(concurrency)
    waiting: deque[asyncio.Task[Made]] = deque()

    async def one(item: Item) -> Made:
        async with free:
            return await function(item)

    try:
        async for item in items:
            waiting.append(asyncio.create_task(one(item)))
            while waiting and (waiting[0].done() or len(waiting) >= 8 * concurrency):
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _iterate(seeds: Iterable[Seed]) -> AsyncIterator[Seed]:
    for seed in seeds:
        yield seed
        await asyncio.sleep(0)  # Lets the chains already under way take a step.


def _candidate(seed: Seed, parent_id: str, step: int, path: tuple[str, ...], transition: Transition) -> Candidate:
    content = "\0".join((seed.id, str(step), transition.operation, transition.rewrite))
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    asked = transition.review.reviewer != "rules"
    calls = (("review", 1), ("rewrite", 1)) if asked else (("rewrite", 1),)
    return Candidate(f"r{digest}", seed, parent_id, step, path, transition, calls=calls)


def _answered(candidate: Candidate, completion: Completion) -> Candidate:
    calls = (("answer", 1), *candidate.calls)
    return replace(candidate, response=completion.text.strip(), responder=completion.model, calls=calls)
