"""Evolve seeds into a dataset: in go seeds, a chooser and the models, out come accepted rows and counted rejections.

Three stages, each open to code that spreads them over processes: `walk` makes the candidates of a group of seeds,
`accept` decides on them in the order of the seeds, `answer` asks for what is still missing. Chains overlap in time;
`accept` alone depends on earlier rows, so that timing never changes the dataset.
"""

import asyncio
import copy
import math
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from ..calls import SETTLE_SECONDS, run_async
from ..environment.rollout import Chooser, uniform
from ..errors import Stopped, UserError
from ..models.base import Generator, Limited, asked_in_batches, check_carries_out, concurrency_of, is_immediate
from ..models.budget import Budget, Price
from ..models.ledger import Ledger
from ..text.operations import Operation, with_proofs
from ..types import Candidate, Example, Reason, Rejection, Seed, State
from . import methods
from .candidates import CHAIN, Counted, answer_request, ask, prove
from .concurrency import close, each, in_batches, in_order, together
from .config import PLANNED, EvolverConfig
from .dedup import NearDuplicates
from .evolution import ROLES, value_function
from .filters import Filter
from .record import CardSettings, RunRecord, record_of
from .shards import Team
from .write import Payment, Writing, WrittenDataset, write_dataset

Decided = tuple[Candidate, str | None]

ALL_CHAINS = sys.maxsize // 128  # No limit, yet a number that can be multiplied.


class DatasetEvolver:
    """Evolves seeds into rows.

    Args:
        expert: Model that carries out operations and answers. Wrap it with `Ledger.record` to never pay twice.
        reviewer: Model that says whether a rewrite gained anything, also in free walks.
        chooser: Picks operations: `policy.choose`, or one of `choosers.CHOOSERS`. For `stop_below` it, or the object
            whose method it is, needs `value(states)`: for each state the reward expected from further operations.
        operations: What the chooser's indices mean.
        args: See `EvolverConfig`.
        instructor: Free model that walks chains to find plans; the methods "plan", "plan_answer", "packed" need one.
        filters: Functions from a candidate to a reason to reject it, or None. They are called before there is an
            answer, in the order of the seeds, and once more with the answer, then in any order.

    To change which operation comes next override `choose`; to change what is kept, `accept`.

    Raises:
        UserError: The method needs an instructor, or `stop_below` a chooser that values states; or a model knows only
            certain operations, and not these.
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
        check_carries_out(operations, expert, *([] if instructor is None else [instructor]))
        self.expert, self.reviewer, self.chooser, self.instructor = expert, reviewer, chooser, instructor
        self.operations, self.args = with_proofs(operations, args.constraints), args
        self.filters: tuple[Filter, ...] = tuple(filters)
        _ = _value_needed(chooser, args)  # That it is missing has to show before a run.
        self._accepted = NearDuplicates(args.dedup_threshold)

    def choose(self, state: State, seed: Seed) -> Operation:
        """The next operation of a chain. Must depend on its arguments alone, or runs can't be repeated."""
        u = uniform("evolve", self.args.seed, seed.id, state.step)
        return self.operations[self.chooser([state], [u])[0]]

    def accept(self, candidate: Candidate) -> str | None:
        """Why a candidate is rejected, or None to keep it. Called in the order of seeds and steps."""
        reason = candidate.transition.review.reason
        if reason is None:
            reason = self._filtered(candidate)
        if reason is None and not self._accepted.add(candidate.transition.rewrite, candidate.seed.id):
            return Reason.NEAR_DUPLICATE
        return reason

    def groups(self, seeds: Iterable[Seed]) -> Iterator[tuple[Seed, ...]]:
        """Seeds that are walked together, in their order: enough for four packs for the method "packed", else one."""
        seeds, size = iter(seeds), self.args.pack_size * self.args.packs_per_group
        while group := tuple(islice(seeds, size)):
            yield group

    @property
    def chains(self) -> int:
        """Most chains at the same time: all where a model answers in batches, so that as many as possible wait."""
        batched = any(asked_in_batches(getattr(self, role)) for role in ROLES)
        return ALL_CHAINS if batched else self.args.concurrency

    @property
    def walkers(self) -> int:
        """Groups that are walked at the same time, each of which requests its packs at once.

        If the models cap their own concurrency, there are 1.25 times as many chains as `concurrency`, so that the next
        request is ready when an answer comes.
        """
        most, models = self.chains, (self.expert, self.reviewer, self.instructor)
        waiting = [model for model in models if model is not None and not is_immediate(model)]
        limited = all(concurrency_of(model) <= most for model in waiting)
        chains = most + most // 4 if limited else most
        return max(1, chains // self.args.packs_per_group)

    async def walk(self, group: Sequence[Seed]) -> list[list[Candidate]]:
        """The candidates of each seed of a group; makes every call that comes before `accept`."""
        roles = self.expert, self.reviewer, self.instructor
        return await methods.walk(group, methods.Models(self._next, self.operations, *roles, self.args))

    async def answer(self, candidate: Candidate, reason: str | None) -> Example | Rejection:
        """The row or rejection of a candidate for which `accept` gave `reason`; asks for a missing answer."""
        if reason is not None:
            return Rejection(candidate, reason)
        CHAIN.set((candidate.seed.id,))
        expert, known = Counted(self.expert, self.args.retry_cut), candidate.response
        if not known:
            candidate, reason = await ask(candidate, answer_request(candidate, self.args), expert)
        if reason is None:
            candidate, reason = await prove(candidate, expert, self.args)
        if reason is None and candidate.response != known:
            reason = self._filtered(candidate)
        return Example(candidate) if reason is None else Rejection(candidate, reason)

    def write(
        self,
        seeds: Sequence[Seed],
        output_dir: str | Path,
        test_seeds: Sequence[Seed] = (),
        *,
        ledger: str | Path | Ledger | None = None,
        retry_errors: bool = False,
        prices: Mapping[str, Price] | None = None,
        budget: Budget = Budget(),  # noqa: B008 (frozen)
        license: str | None = None,
        language: str = "en",
        card_template: str | Path | None = None,
        record: RunRecord | None = None,
        show_progress: bool = True,
    ) -> WrittenDataset:
        """Evolve seeds into a finished folder: Parquet files, card, record, page of chains, and the ledger.

        Run again after a stop, the same call continues: no answer is bought twice, and the folder gets the same bytes.
        Under `accelerate launch` the processes share the seeds and write what one would; all return when the folder is
        finished. The evolver itself stays as it is: the work is done by copies of it, see `fresh`.

        Args:
            seeds: Seeds of the split `train`; `load_seeds` reads them.
            output_dir: A new folder, or that of the same run.
            test_seeds: Seeds of the split `test`; `split_seeds` holds some out.
            ledger: File that records all calls, or an open `Ledger` (on one process); by default the one that already
                records the expert, else `ledger.sqlite` in the folder.
            retry_errors, prices, budget: See `Ledger`.
            license: Licence of the dataset, as the Hub names it; None is "unknown".
            language: Language of the dataset.
            card_template: Path of a Jinja file for README.md, see `dataset_card`.
            record: What a command knows about the run; made from the evolver by default.

        Raises:
            UserError: The folder holds something else, or a run with other settings; or an argument can't be used.
            Stopped: The budget is spent, or a model refuses all calls. Its note counts the calls.
            NothingMade: No row was accepted. Its note counts the rejections.
        """
        known = getattr(self.expert, "ledger", None)
        if ledger is None:
            ledger = known if isinstance(known, Ledger) else Path(output_dir) / "ledger.sqlite"
        own = {name for name in ("accept", "choose") if getattr(type(self), name) is not getattr(DatasetEvolver, name)}
        writing = Writing(
            self,
            list(seeds),
            list(test_seeds),
            Path(output_dir),
            Payment(ledger, retry_errors, prices, budget),
            CardSettings(license, language, card_template),
            record_of(self, seeds, test_seeds, own) if record is None else record,
            own,
            show_progress,
        )
        return write_dataset(writing)

    def fresh(self) -> Self:
        """A copy that has accepted nothing yet; `write` works with one for each pass over the seeds.

        Attributes that can be called (models, choosers, embedders) are shared with the copy, all others are copied.
        Override it for a subclass to which that does not apply.
        """
        other = copy.copy(self)
        shared = {id(value): value for value in vars(self).values() if callable(value)}
        for name, value in vars(self).items():
            if name not in ("filters", "_accepted"):
                with suppress(TypeError):  # A connection or a lock can only be shared.
                    setattr(other, name, copy.deepcopy(value, shared))
        other.filters = tuple(judge.fresh() if hasattr(judge, "fresh") else judge for judge in self.filters)
        other._accepted = NearDuplicates(self.args.dedup_threshold)
        return other

    def with_settings(self, **changes: Any) -> Self:
        """A fresh copy with other fields of `EvolverConfig`."""
        other = self.fresh()
        other.args = replace(self.args, **changes)
        return other

    def recorded(self, ledger: Ledger) -> Self:
        """A fresh copy whose calls go through `ledger`."""
        other = self.fresh()
        for role in ROLES:
            model = getattr(self, role)
            if model is not None and getattr(model, "ledger", None) is not ledger:
                setattr(other, role, ledger.record(_limited(model, self.chains, self.args.concurrency)))
        return other

    def push_to_hub(self, folder: str | Path, repo_id: str, **options: Any) -> str | None:
        """Push a finished folder in one commit, see `push_dataset`.

        Returns:
            Its URL; None, and nothing is pushed, in all but the first process of a launch.
        """
        from ..hub.push import push_dataset

        return push_dataset(folder, repo_id, **options) if Team.join().first else None

    async def settle(self, seconds: float | None = SETTLE_SECONDS) -> None:
        """Let the ledgers record calls under way, for at most `seconds`; call it when the stages were cut short."""
        settling = (getattr(getattr(self, role), "settle", None) for role in ROLES)
        await asyncio.gather(*(settle(seconds) for settle in settling if settle is not None))

    def evolve(self, seeds: Iterable[Seed]) -> Iterator[list[Example | Rejection]]:
        """For each seed, in order, a row or rejection for each candidate. Seeds are read as they are needed."""
        batches = in_batches(self.stream(seeds))
        try:
            while batch := run_async(anext(batches, None)):
                yield from batch
        finally:
            run_async(close(batches))

    async def stream(self, seeds: Iterable[Seed]) -> AsyncGenerator[list[Example | Rejection]]:
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
            patience = None  # Nothing is urgent: wait for all that was bought.
            raise
        finally:
            await self.settle(patience)

    def _next(self, state: State, seed: Seed) -> Operation | None:
        value, least = _value_needed(self.chooser, self.args), self.args.stop_below or 0.0
        return None if value is not None and value([state])[0] < least else self.choose(state, seed)

    def _filtered(self, candidate: Candidate) -> str | None:
        return next((reason for judge in self.filters if (reason := judge(candidate))), None)

    async def _decide(self, groups: AsyncGenerator[list[list[Candidate]]]) -> AsyncGenerator[list[Decided]]:
        async for chains in groups:
            for candidates in chains:
                yield [(candidate, self.accept(candidate)) for candidate in candidates]

    async def _answer_all(self, chains: AsyncGenerator[list[Decided]]) -> AsyncGenerator[list[Example | Rejection]]:
        if not self.args.answered_in_walk or any(operation.proof for operation in self.operations):
            async with aclosing(in_order(self._answer_chain, chains, self.chains)) as finished:
                async for results in finished:
                    yield results
            return
        async for chain in chains:  # There is nothing to wait for, so tasks would only take time.
            yield [await self.answer(candidate, reason) for candidate, reason in chain]

    async def _answer_chain(self, chain: list[Decided]) -> list[Example | Rejection]:
        at_once = is_immediate(self.expert)
        return await together([self.answer(candidate, reason) for candidate, reason in chain], at_once)


def _limited(model: Generator, chains: int, concurrency: int) -> Generator:
    """A model that says no limit of its own gets `concurrency`, where the number of chains has another limit."""
    limited = concurrency_of(model) < math.inf or is_immediate(model) or asked_in_batches(model)
    return model if limited or chains == concurrency else Limited(model, concurrency)


def _value_needed(chooser: Chooser, args: EvolverConfig) -> Callable[[Sequence[State]], Sequence[float]] | None:
    """The chooser's value of states where `stop_below` needs it."""
    if args.stop_below is None:
        return None
    if (value := value_function(chooser)) is None:
        name = getattr(chooser, "name", type(chooser).__name__)
        raise UserError(
            f"stop_below needs a chooser that values states, which {name!r} does not; leave stop_below out."
        )
    return value
