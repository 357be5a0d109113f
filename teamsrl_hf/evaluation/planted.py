"""Worlds of which the answer is known: in which nothing can be learned, and in which a bandit can't learn what pays.

- `CoinInstructor`: success falls by a coin.
- `delayed`: `deepen` pays once `breadth`, which pays nothing, was tried before it in the chain; all else pays little.
- `contextual`: `deepen` and `concretize` pay in turn, `deepen` first where the text asks, else `concretize` first.
  So the step says nothing without the text, nor the text without the step.

In the last two nothing is rewritten: the instructor `LeavesAlone`, and a reward function says what a step was worth.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from ..environment.rewards import RewardFunction
from ..environment.rollout import Chooser, rollout, uniform
from ..evolve.evolver import DatasetEvolver
from ..models.base import Completion, Request
from ..models.rulebook.rules import Rulebook
from ..text.operations import OPERATIONS
from ..types import CallKind, Candidate, Example, Rejection, Seed, TaskKind, Trajectory

STEPS = 6  # Of a chain.
# Those that add a sentence: of the others the gate expects more, so that it, and not the coin, would reject them.
ADDING = tuple(one for one in OPERATIONS if one.name not in ("breadth", "complicate_input"))
A_LITTLE = 0.3


class CoinInstructor:
    """Carries out no operation: it adds one arbitrary sentence, or, by a coin, nothing.

    Each call tosses anew, also for an operation that failed on the same text, so that neither the operation nor the
    text nor what was tried before can tell how the toss falls.
    """

    model, whole = "coin", True

    def __init__(self, key: tuple, success: float = 0.35):
        self.key, self.success = key, success
        self._asked: Counter[tuple[str, str]] = Counter()
        self._rules = Rulebook()

    async def __call__(self, request: Request) -> Completion:
        task = request.task
        if task is None or task.kind != TaskKind.REWRITE:
            return await self._rules(request)
        found = task.plans[0][0], task.texts[0]
        self._asked[found] += 1
        toss = (self.key, found, self._asked[found])
        if uniform("toss", *toss) >= self.success:
            return Completion(found[1], self.model)
        things = ", ".join(f"item {int(uniform('thing', n, *toss) * 1e6)}" for n in range(3))
        return Completion(f"{found[1]} Mention {things}.", self.model)


def tossed(evolver: DatasetEvolver, seeds: Sequence[Seed]) -> Iterator[list[Example | Rejection]]:
    """As `evolver.evolve`, but of rollouts, in which each try is a call: an evolver asks nothing twice in a chain, so
    that an operation that failed on a text would fail on it for good, which can be learned."""
    luck = ("evolve", evolver.args.seed)
    for chain in rollout(seeds, evolver.chooser, ADDING, evolver.expert, evolver.reviewer, STEPS, luck):
        seed = chain.seed
        made = [
            Candidate("", seed, seed.id, step, (transition.operation,), transition, calls=((CallKind.REWRITE, 1),))
            for step, transition in enumerate(chain.transitions)
        ]
        reasons = [evolver.accept(candidate) for candidate in made]
        yield [Rejection(candidate, why) if why else Example(candidate) for candidate, why in zip(made, reasons)]


class LeavesAlone:
    """An instructor that returns every text as it is."""

    model, immediate, deterministic, whole = "leaves alone", True, True, True

    async def __call__(self, request: Request) -> Completion:
        assert request.task is not None
        return Completion(request.task.texts[0], self.model)


def delayed(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """Reward of each step: 1 for `deepen` after `breadth`, 0 for both before, else a little."""
    return [_delayed([transition.operation for transition in chain.transitions]) for chain in trajectories]


def _delayed(operations: Sequence[str]) -> list[float]:
    return [
        float("breadth" in operations[:step]) if name == "deepen" else 0.0 if name == "breadth" else A_LITTLE
        for step, name in enumerate(operations)
    ]


def contextual(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """Reward of each step: 1 for the operation whose turn it is."""
    return [
        [float(t.operation == _whose_turn(t.instruction, step)) for step, t in enumerate(chain.transitions)]
        for chain in trajectories
    ]


def _whose_turn(text: str, step: int) -> str:
    return "deepen" if ("?" in text) == (step % 2 == 0) else "concretize"


TASKS: dict[str, RewardFunction] = {"delayed": delayed, "contextual": contextual}


def reward_per_chain(chooser: Chooser, seeds: Sequence[Seed], task: RewardFunction, seed: int) -> float:
    """Mean reward of a chain of six operations on each seed; `seed` decides the luck it draws with."""
    world = LeavesAlone()
    chains = rollout(seeds, chooser, OPERATIONS, world, world, STEPS, ("planted", seed))
    return sum(map(sum, task(chains))) / len(chains)
