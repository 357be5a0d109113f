"""One evolution on several processes: in go seeds and a team of processes, out comes a ledger that holds its answers.

Processes share the work, not the decisions. Each walks its share of the seeds and writes down the candidates; the
first decides on all of them in the order of the seeds, as one process would; each has its own accepted ones answered.
Every answer is in the ledger of the process that bought it. The merged ledger replays the whole evolution without a
call, so that one process then writes the same dataset as it would alone.
"""

import atexit
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..calls import run_async
from ..errors import CallsRefused, Stopped
from ..models.budget import Budget
from ..models.ledger import Ledger
from ..types import Candidate, Review, Seed, Transition, Verifier
from .concurrency import close, each, in_order, together
from .evolution import Evolution
from .progress import Advance

Made = TypeVar("Made")
# The first process may decide for hours while the others wait.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Team:
    """The processes of one launch.

    Attributes:
        rank: This process, counted from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "Team":
        """The team this process was launched into by `accelerate launch` or `torchrun`; alone, a team of one."""
        team = cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        if team.size > 1:
            import torch
            from torch import distributed

            if torch.cuda.is_available():  # A model in this process goes where "cuda" points to.
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            if not distributed.is_initialized():
                distributed.init_process_group("gloo", timeout=PATIENCE)
                atexit.register(_leave)
        return team

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Made) -> list[Made]:
        """The values of all processes, in the order of their ranks; waits for them."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:
            # The other process has said why it stopped; a second traceback would only hide that.
            raise SystemExit(f"process {self.rank} stops: another one did ({str(error).splitlines()[0]})") from error
        return values

    def first_does(self, function: Callable[[], Made], status: int = 2) -> Made:
        """What `function` returns in the first process, for all of them; if it fails there, the others exit."""
        if self.size == 1:
            return function()
        try:
            mine = [function()] if self.first else None
        except BaseException:
            with suppress(SystemExit):  # Others that have left already must not hide the reason.
                self.gather(None)
            raise
        outcome = self.gather(mine)[0]
        if outcome is None:
            raise SystemExit(status)
        return outcome[0]


def _leave() -> None:
    """End the group while Python still runs: at exit it sometimes aborts the process."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def share_of(budget: Budget, ledger: Ledger, size: int) -> Budget:
    """What one of `size` processes may spend of what `ledger` leaves of a budget."""

    def part(limit: int | None, spent: int) -> int | None:
        return None if limit is None else max(0, limit - spent) // size

    cost = None if budget.cost is None else max(0.0, budget.cost - ledger.cost) / size
    return Budget(part(budget.calls, ledger.attempts), part(budget.tokens, ledger.tokens), cost)


def buy_together(
    team: Team,
    seeds: Sequence[Seed],
    folder: Path,
    evolver_on: Callable[[Ledger], Evolution],
    open_part: Callable[[], Ledger],
    progress: Callable[[str, Ledger], AbstractContextManager[Advance]],
) -> Stopped | None:
    """Let all processes buy the answers for `seeds`; returns what stopped one of them, if anything did.

    Args:
        folder: Empty folder on a shared file system, in which the processes exchange candidates.
        evolver_on: Makes an evolver whose calls go through a ledger.
        open_part: Opens this process's own ledger.
        progress: Shows the progress of a stage; yields a function to call with the number of seeds that are done.
    """
    walked = [folder / f"walked-{rank}.jsonl" for rank in range(team.size)]
    decided = [folder / f"decided-{rank}.jsonl" for rank in range(team.size)]
    mine = walked[team.rank], decided[team.rank]
    with open_part() as ledger:
        evolver = evolver_on(ledger)
        groups = islice(evolver.groups(seeds), team.rank, None, team.size)
        with progress("Walking", ledger) as advance:
            stopped = _first(team.gather(_stopped(evolver, lambda: _walk(evolver, groups, mine[0], advance))))
        if stopped is None:
            team.first_does(lambda: decide(evolver_on(ledger), walked, decided))
            with progress("Answering", ledger) as advance:
                stopped = _stopped(evolver, lambda: _answer(evolver, *mine, advance))
        if stopped is None:
            ledger.conclude()
    return _first(team.gather(stopped))  # Also lets no one merge a ledger that another still holds.


def _stopped(evolver: Evolution, stage: Callable[[], None]) -> Stopped | None:
    """Run a stage; returns what stopped it before its end, if anything did."""
    try:
        stage()
    except Stopped as stopped:
        run_async(evolver.settle(None))
        return stopped
    except BaseException:
        run_async(evolver.settle())
        raise
    return None


def _first(stopped: Sequence[Stopped | None]) -> Stopped | None:
    """The reason to report of all that stopped a process: refused calls before a spent budget."""
    found = [reason for reason in stopped if reason is not None]
    return min(found, key=lambda reason: not isinstance(reason, CallsRefused), default=None)


def _walk(evolver: Evolution, groups: Iterable[Sequence[Seed]], path: Path, advance: Advance) -> None:
    """Walk groups of seeds, and write one line for each group, in order: the candidates of each of its seeds."""
    with path.open("w", encoding="utf-8") as file:

        def keep(chains: list[list[Candidate]]) -> None:
            file.write(write_candidates(chains) + "\n")
            advance(len(chains))

        consume(in_order(evolver.walk, each(groups), evolver.walkers), keep)


def decide(evolver: Evolution, walked: Sequence[Path], decided: Sequence[Path]) -> None:
    """Decide on all candidates, in the order of the seeds; write for each process why its candidates are rejected.

    Line n of the file of rank r holds group n * size + r.
    """
    with ExitStack() as stack:
        sources = [stack.enter_context(path.open(encoding="utf-8")) for path in walked]
        targets = [stack.enter_context(path.open("w", encoding="utf-8")) for path in decided]
        for lines in iter(lambda: [source.readline() for source in sources], [""] * len(sources)):
            for line, target in zip(lines, targets):
                if line:
                    reasons = [[evolver.accept(candidate) for candidate in chain] for chain in read_candidates(line)]
                    target.write(json.dumps(reasons) + "\n")


def _answer(evolver: Evolution, walked: Path, decided: Path, advance: Advance) -> None:
    """Have the accepted candidates of this process answered."""

    async def answer(lines: tuple[str, str]) -> int:
        chains, reasons = read_candidates(lines[0]), json.loads(lines[1])
        pairs = [pair for chain, why in zip(chains, reasons) for pair in zip(chain, why)]
        await together([evolver.answer(candidate, reason) for candidate, reason in pairs if reason is None])
        return len(chains)

    with walked.open(encoding="utf-8") as candidates, decided.open(encoding="utf-8") as reasons:
        consume(in_order(answer, each(zip(candidates, reasons)), evolver.args.concurrency), advance)


def write_candidates(chains: Sequence[Sequence[Candidate]]) -> str:
    """The candidates of each seed of a group as one line."""
    return json.dumps([[asdict(candidate) for candidate in chain] for chain in chains])


def read_candidates(line: str) -> list[list[Candidate]]:
    """The candidates in a line of `write_candidates`."""
    return [[_candidate(values) for values in chain] for chain in json.loads(line)]


def _candidate(values: dict[str, Any]) -> Candidate:
    """The candidate of these values, which went through `asdict` and JSON."""
    seed, transition = Seed(**values["seed"]), values["transition"]
    review = Review(**{**transition["review"], "violations": tuple(transition["review"]["violations"])})
    calls = tuple((kind, count) for kind, count in values["calls"])
    verifiers = tuple(Verifier(**one) for one in transition["verifiers"])
    made = Transition(**{**transition, "review": review, "verifiers": verifiers})
    lists = {name: tuple(values[name]) for name in ("operations", "verified", "failed_first")}
    return Candidate(**{**values, **lists, "seed": seed, "transition": made, "calls": calls})


def consume(stream: AsyncGenerator[Made], sink: Callable[[Made], object]) -> None:
    """Call `sink` with each item of a stream, in the thread of the event loop.

    To hand results from thread to thread costs more than to make them. If interrupted, it returns when the stream has
    stopped running.
    """

    async def run() -> None:
        async for made in stream:
            sink(made)

    try:
        run_async(run())
    finally:
        run_async(close(stream))
