"""Evolve seeds into a dataset: in go seeds, a chooser and the models, out come accepted rows and counted rejections.

Three stages, each open to code that spreads them over processes: `walk` makes the candidates of a group of seeds,
`accept` decides on them in the order of the seeds, `answer` asks for what is still missing. Chains overlap in time;
whatever depends on the rows before it is decided in `accept`, so that timing never changes the dataset.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

from ..environment.rollout import Chooser, uniform
from ..errors import Stopped, UserError
from ..models.base import Generator, concurrency_of, is_immediate
from ..models.calls import SETTLE_SECONDS, run_async
from ..text.operations import Operation
from ..types import Candidate, Example, Reason, Rejection, Seed, State
from . import methods
from .concurrency import close, each, in_batches, in_order, together
from .config import PLANNED, EvolverConfig
from .dedup import NearDuplicates

Filter = Callable[[Candidate], str | None]
Decided = tuple[Candidate, str | None]


class DatasetEvolver:
    """Evolves seeds into rows.

    Args:
        expert: Model that carries out operations and answers. Wrap it with `Ledger.record` to never pay twice.
        reviewer: Model that says whether a rewrite gained anything; asked about free walks too.
        chooser: Picks operations: `policy.choose`, or one of `baselines.CHOOSERS`. For `stop_below` it, or the object
            it is a method of, needs `value(states)`, which returns for each state what going on is expected to earn.
        operations: What the chooser's indices mean.
        args: See `EvolverConfig`.
        instructor: Free model that walks chains to find plans; the methods "plan", "plan_answer", "packed" need one.
        filters: Functions from a candidate to a reason to reject it, or None. They are asked before the answer, in the
            order of the seeds, and about the answered candidate once more, then in any order.

    To change which operation comes next override `choose`; to change what is kept, `accept`.

    Raises:
        UserError: The method needs an instructor, or `stop_below` a chooser that values states.
    """

    def __init__(
        self,
        expert: Generator,
        reviewer: Generator,
        chooser: Chooser,
        operations: Sequence[Operation],
        args: EvolverConfig = EvolverConfig(),  # noqa: B008 (frozen)
        instructor: Generator | None = None,
        filters: Sequence[Filter] = (),
    ):
        if args.method in PLANNED and instructor is None:
            raise UserError(f"The method {args.method!r} needs an instructor, a free model to walk chains with.")
        self.expert, self.reviewer, self.chooser, self.instructor = expert, reviewer, chooser, instructor
        self.operations, self.args, self.filters = tuple(operations), args, tuple(filters)
        self._value = None if args.stop_below is None else _value_function(chooser)
        self._accepted = NearDuplicates(args.dedup_threshold)
        self._models = methods.Models(
            self._next,
            self.operations,
            expert,
            reviewer,
            instructor,
            args,
        )

    def choose(self, state: State, seed: Seed) -> Operation:
        """The next operation of a chain. Must depend on its arguments alone, or runs can't be repeated."""
        u = uniform("evolve", self.args.seed, seed.id, state.step)
        return self.operations[self.chooser([state], [u])[0]]

    def accept(self, candidate: Candidate) -> str | None:
        """Why a candidate is rejected, or None to keep it. Called in the order of seeds and steps."""
        reason = candidate.transition.review.reason or self._filtered(candidate)
        if reason is None and not self._accepted.add(candidate.transition.rewrite, candidate.seed.id):
            return Reason.NEAR_DUPLICATE
        return reason

    def groups(self, seeds: Iterable[Seed]) -> Iterator[tuple[Seed, ...]]:
        """Seeds that are walked together, by their order alone: enough for four packs when packed, else one."""
        seeds, size = iter(seeds), self.args.pack_size * self.args.packs_per_group
        while group := tuple(islice(seeds, size)):
            yield group

    @property
    def walkers(self) -> int:
        """Groups walked at the same time, each of which asks for its packs at once.

        There are a quarter more chains than `concurrency` where the models send no more requests at once themselves:
        the next one is then ready when an answer comes.
        """
        most, models = self.args.concurrency, (self.expert, self.reviewer, self.instructor)
        waiting = [model for model in models if model is not None and not is_immediate(model)]
        limited = all(concurrency_of(model) <= most for model in waiting)
        chains = most + most // 4 if limited else most
        return max(1, chains // self.args.packs_per_group)

    async def walk(self, group: Sequence[Seed]) -> list[list[Candidate]]:
        """The candidates of each seed of a group; makes every call that comes before `accept`."""
        return await methods.walk(group, self._models)

    async def answer(self, candidate: Candidate, reason: str | None) -> Example | Rejection:
        """What becomes of a candidate that `accept` gave `reason` for; asks for its answer if it is still missing."""
        if reason is not None:
            return Rejection(candidate, reason)
        if candidate.response:
            return Example(candidate)
        expert = methods.Counted(self._models.expert, self.args.retry_cut)
        completion = await expert(methods.answer_request(candidate, self.args))
        candidate = methods.answered(candidate, completion, expert.spent())
        reason = methods.answer_problem(completion) or self._filtered(candidate)
        return Rejection(candidate, reason) if reason else Example(candidate)

    def push_to_hub(self, folder: str | Path, repo_id: str, **options: Any) -> str:
        """Push the folder that a `DatasetWriter` finished, in one commit; returns its URL. See `hub.push_dataset`."""
        from ..hub.push import push_dataset

        return push_dataset(folder, repo_id, **options)

    async def settle(self, seconds: float | None = SETTLE_SECONDS) -> None:
        """Let the ledgers record what is under way, at most for `seconds`; call it when the stages were cut short."""
        models = (self.expert, self.reviewer, self.instructor)
        await asyncio.gather(*(model.settle(seconds) for model in models if hasattr(model, "settle")))

    def evolve(self, seeds: Iterable[Seed]) -> Iterator[list[Example | Rejection]]:
        """For each seed, in order, what became of every candidate it gave. Seeds are taken as they are needed."""
        batches = in_batches(self.stream(seeds))
        try:
            while batch := run_async(anext(batches, None)):
                yield from batch
        finally:
            run_async(close(batches))

    async def stream(self, seeds: Iterable[Seed]) -> AsyncIterator[list[Example | Rejection]]:
        """As `evolve`, for code that is asynchronous itself."""
        patience: float | None = SETTLE_SECONDS
        try:
            async with (
                aclosing(in_order(self.walk, each(self.groups(seeds)), self.walkers)) as walked,
                aclosing(self._answer_all(self._decide(walked))) as finished,
            ):
                async for results in finished:
                    yield results
        except Stopped:
            patience = None  # Nothing is pressing: what was bought is waited for.
            raise
        finally:
            await self.settle(patience)

    def _next(self, state: State, seed: Seed) -> Operation | None:
        if self._value and self._value([state])[0] < self.args.stop_below:
            return None
        return self.choose(state, seed)

    def _filtered(self, candidate: Candidate) -> str | None:
        return next((reason for judge in self.filters if (reason := judge(candidate))), None)

    async def _decide(self, groups: AsyncIterable[list[list[Candidate]]]) -> AsyncIterator[list[Decided]]:
        async for chains in groups:
            for candidates in chains:
                yield [(candidate, self.accept(candidate)) for candidate in candidates]

    async def _answer_all(self, chains: AsyncIterator[list[Decided]]) -> AsyncIterator[list[Example | Rejection]]:
        if not self.args.answered_in_walk:
            async with aclosing(in_order(self._answer_chain, chains, self.args.concurrency)) as finished:
                async for results in finished:
                    yield results
            return
        async for chain in chains:  # Nothing is left to wait for, so tasks would only take time.
            yield [await self.answer(candidate, reason) for candidate, reason in chain]

    async def _answer_chain(self, chain: list[Decided]) -> list[Example | Rejection]:
        at_once = is_immediate(self._models.expert)
        return await together([self.answer(candidate, reason) for candidate, reason in chain], at_once)


def _value_function(chooser: Chooser) -> Callable[[Sequence[State]], Sequence[float]]:
    """What tells how much a chooser expects; a policy's chooser is a method of the policy."""
    for owner in (chooser, getattr(chooser, "__self__", None)):
        if callable(value := getattr(owner, "value", None)):
            return value
    name = getattr(chooser, "name", type(chooser).__name__)
    raise UserError(f"stop_below needs a chooser that values states, which {name!r} does not; leave stop_below out.")
