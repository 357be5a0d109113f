"""The world the policy acts in: operations applied to a batch of instructions, rewrites reviewed, chains collected.

Training and dataset generation take the very same step, `carry_out`, so that a policy meets in use what it met in
training.
"""

import asyncio
import hashlib
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from ..calls import run_async
from ..errors import most_failed
from ..models.base import Generator, Sampling, check_carries_out, is_immediate, may_remember
from ..text.operations import Operation
from ..types import BY_RULES, Role, Seed, State, Trajectory, Transition, Verifier
from .review import review
from .rewriting import ask_rewrite

Result = TypeVar("Result")


class Chooser(Protocol):
    """Picks the next operation of each chain.

    Called with the states of B chains and B numbers in [0, 1), the only randomness it may use; returns B indices
    into the tuple of operations. A policy, a bandit and a fixed schedule are all choosers.
    """

    def __call__(self, states: Sequence[State], uniforms: Sequence[float]) -> Sequence[int]: ...


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on `key` alone, so that choosers can be compared on the same luck.

    >>> uniform("s1", 0) == uniform("s1", 0), uniform("s1", 0) == uniform("s1", 1)
    (True, False)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


async def carry_out(
    texts: Sequence[str],
    operation: Operation,
    instructor: Generator,
    reviewer: Generator,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    role: Role = Role.INSTRUCTOR,
    carried: tuple[Verifier, ...] = (),
) -> Transition:
    """Apply `operation` to the last of `texts`, the chain so far, and review what comes back.

    `carried` are the verifiers of the last text.

    Where both models are deterministic, the step of a chain that took it before is returned again.
    """
    step = texts, operation, instructor, reviewer, sampling, role, carried
    if not (may_remember(instructor) and may_remember(reviewer)):
        return await _carry_out(*step)
    known, key = _steps_of(instructor, reviewer), (tuple(texts), operation, sampling, role, carried)
    if key not in known:
        if len(known) >= 20_000:
            known.clear()
        known[key] = _result(_carry_out(*step))
    return known[key]


# By the identities of an instructor and a reviewer: to hold them here would keep whole models from being freed.
_STEPS: dict[tuple[int, int], dict[Any, Transition]] = {}


def _steps_of(instructor: Generator, reviewer: Generator) -> dict[Any, Transition]:
    """The steps that these two took before; forgotten when the first of them is freed."""
    pair = id(instructor), id(reviewer)
    if pair not in _STEPS:
        try:
            for generator in {id(one): one for one in (instructor, reviewer)}.values():
                weakref.finalize(generator, _STEPS.pop, pair, None).atexit = False
        except TypeError:  # A class with __slots__ allows no weak reference, so nobody would say when it is freed.
            return {}
        _STEPS[pair] = {}
    return _STEPS[pair]


async def _carry_out(
    texts: Sequence[str],
    operation: Operation,
    instructor: Generator,
    reviewer: Generator,
    sampling: Sampling,
    role: Role,
    carried: tuple[Verifier, ...],
) -> Transition:
    text = texts[-1]
    made = await ask_rewrite(operation, text, instructor, role, sampling, carried=carried)
    if isinstance(made, Transition):
        return made
    verdict = await review(text, made.text, texts[:-1], operation, reviewer)
    found = made.verifiers if verdict.passed else ()
    return Transition(text, operation.name, made.text, verdict, made.model, edit=made.edit, verifiers=found)


def states_of(trajectory: Trajectory) -> list[State]:
    """The state before each transition of a chain, and the one after the last: len(transitions) + 1 states."""
    states = [State(trajectory.seed.text)]
    for transition in trajectory.transitions:
        states.append(next_state(states[-1], transition))
    return states


def next_state(state: State, transition: Transition) -> State:
    """The state that `transition` leads to."""
    return State(
        text=transition.result,
        operations=(*state.operations, transition.operation),
        accepted=(*state.accepted, transition.review.passed),
        step=state.step + 1,
        verifiers=transition.verifiers if transition.review.passed else state.verifiers,
    )


def rollout(
    seeds: Sequence[Seed],
    choose: Chooser,
    operations: Sequence[Operation],
    instructor: Generator,
    reviewer: Generator,
    steps: int,
    key: Sequence[object] = (),
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    on_step: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Walk B chains side by side, `steps` operations each; all calls of a step are made concurrently.

    An operation whose call failed is no step of the chain, which is that much shorter: nothing is to be learned of it.

    Args:
        seeds: B seeds; one that stands in the batch several times gets other random numbers each time.
        key: What the random numbers depend on besides seed and step (a run's seed, a rollout's number).
        on_step: Told the number of chains after every step, for a progress bar.

    Raises:
        UserError: The instructor knows only certain operations, and not these.
        CallsRefused: Most calls to a model failed, see `check_answered`.
    """
    check_carries_out(operations, instructor)
    occurrence: dict[str, int] = {}
    keys = []
    for seed in seeds:
        occurrence[seed.id] = occurrence.get(seed.id, -1) + 1
        keys.append((*key, seed.id, occurrence[seed.id]))
    chains: list[list[Transition]] = [[] for _ in seeds]
    failed: list[list[Transition]] = [[] for _ in seeds]
    texts = [[seed.text] for seed in seeds]  # Of each chain, so far.
    states = [State(seed.text) for seed in seeds]
    at_once = is_immediate(instructor) and is_immediate(reviewer)
    for step in range(steps):
        actions = choose(states, [uniform(*chain, step) for chain in keys])
        calls = [
            carry_out(tuple(so_far), operations[action], instructor, reviewer, sampling, carried=state.verifiers)
            for so_far, action, state in zip(texts, actions, states)
        ]
        made = run_all(calls, at_once)
        for chain, lost, so_far, transition in zip(chains, failed, texts, made):
            (lost if transition.failure else chain).append(transition)
            if transition.review.passed:
                so_far.append(transition.rewrite)
        states = [s if transition.failure else next_state(s, transition) for s, transition in zip(states, made)]
        if on_step:
            on_step(len(seeds))
    check_answered([t for chain in chains for t in chain], [t for lost in failed for t in lost])
    return [Trajectory(seed, tuple(chain), tuple(lost)) for seed, chain, lost in zip(seeds, chains, failed)]


def check_answered(made: Sequence[Transition], failed: Sequence[Transition]) -> None:
    """CallsRefused where a model failed at most of its calls: what the others say is then no picture of the whole."""
    unwritten = [transition.error for transition in failed if transition.error]
    unjudged = [transition.review.error for transition in failed if transition.review.error]
    judged = sum(transition.review.reviewer != BY_RULES for transition in made)
    written = len(made) + len(unjudged)
    for role, answered, errors in ((Role.INSTRUCTOR, written, unwritten), (Role.REVIEWER, judged, unjudged)):
        if errors and (len(errors) > max(1, answered) or not made):
            raise most_failed(f"the {role}", errors, answered)


def run_all(coroutines: Sequence[Coroutine[Any, Any, Result]], at_once: bool = False) -> list[Result]:
    """Run coroutines to their end, side by side, or one after the other where none of them ever waits."""
    if at_once:
        return [_result(coroutine) for coroutine in coroutines]
    return run_async(_gather(coroutines))


def _result(coroutine: Coroutine[Any, Any, Result]) -> Result:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a generator that calls itself immediate waited")


async def _gather(coroutines: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; when one fails its error is raised once the others have ended: they may have been paid for."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
