"""Requests to look at before a run: in go an evolver and its seeds, out comes what its models will be asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...environment.edit_plans import edit_plan_request, steps_for
from ...environment.review import question_request, reviewing_of
from ...environment.rewriting import first_request, pack_request, plan_request
from ...models.base import Generator, Request, as_asked, writes_whole
from ...text.operations import Operation
from ...text.questions import DIFFERENT
from ...types import Role, Seed, State
from ..candidates import text_request
from ..config import PLANNED
from ..evolution import Evolution
from ..methods import drawn_operation, in_plan

STAND_IN = "{} Give an example for each point."  # A rewrite to ask a reviewer about, before there is any.


@dataclass(frozen=True)
class Sample:
    """A request to one role; `first` says that the run begins with it, so that its answer is not bought in vain."""

    role: Role
    generator: Generator
    request: Request
    first: bool = False


def samples(evolver: Evolution, seeds: Sequence[Seed]) -> list[Sample]:
    """One request to each role that the method asks, about the first seeds."""
    seed, planned = seeds[0], evolver.args.method in PLANNED
    role, walker = walker_of(evolver)
    asked = [rewrite_sample(evolver, seed, operation) for operation in _chosen(evolver, seed)]
    found = [Sample(role, walker, one, first=not place) for place, one in enumerate(asked) if one is not None][:1]
    if planned:
        found.append(Sample(Role.EXPERT, evolver.expert, paid_sample(evolver, seeds[: evolver.args.pack_size])))
    elif not found:
        found.append(Sample(role, walker, answer_sample(evolver, seed)))
    judge, reviewer = judge_of(evolver)
    return [*found, Sample(judge, reviewer, verdict_sample(evolver, seed))]


def walker_of(evolver: Evolution) -> tuple[Role, Generator]:
    """Who carries out single operations, and in which role."""
    if evolver.args.method in PLANNED and evolver.instructor is not None:
        return Role.INSTRUCTOR, evolver.instructor
    return Role.EXPERT, evolver.expert


def judge_of(evolver: Evolution) -> tuple[Role, Generator]:
    """Who gives verdicts, and in which role."""
    if evolver.args.method == "evol_instruct":
        return Role.JUDGE, evolver.expert
    return Role.REVIEWER, evolver.reviewer


def rewrite_sample(evolver: Evolution, seed: Seed, operation: Operation) -> Request | None:
    """The first request of a step that begins with `seed`; None where code carries it out."""
    role, walker = walker_of(evolver)
    operation = in_plan(operation) if evolver.args.method in PLANNED else operation
    request = first_request(operation, seed.text, walker, role, evolver.args.sampling)
    return request and as_asked(walker, request)


def verdict_sample(evolver: Evolution, seed: Seed) -> Request:
    """A request for a verdict on a rewrite of `seed` that is made up."""
    role, judge = judge_of(evolver)
    question = DIFFERENT if role == Role.JUDGE else reviewing_of(judge).asked[0][0]
    return as_asked(judge, question_request(question, seed.text, STAND_IN.format(seed.text), role))


def paid_sample(evolver: Evolution, seeds: Sequence[Seed]) -> Request:
    """A request of a planned method to the expert, as if each operation gained something."""
    args, expert = evolver.args, evolver.expert
    plans = [[one for one in _chosen(evolver, seed) if rewrite_sample(evolver, seed, one)] for seed in seeds]
    items = [(seed.text, tuple(plan)) for seed, plan in zip(seeds, plans) if plan]
    if not items:
        return answer_sample(evolver, seeds[0])
    sampling = replace(args.sampling, max_tokens=args.max_tokens * len(items))
    edits = [(text, () if writes_whole(expert) else steps_for(text, plan)) for text, plan in items]
    if all(steps for _, steps in edits):
        return as_asked(expert, edit_plan_request(edits, sampling, 0, args.answered_in_walk))
    if args.method == "plan":
        return as_asked(expert, plan_request(*items[0], sampling))
    return as_asked(expert, pack_request(items, sampling))


def answer_sample(evolver: Evolution, seed: Seed) -> Request:
    """A request to the expert for an answer, as if `seed` were a rewrite."""
    return as_asked(evolver.expert, text_request(seed.text, evolver.args))


def _chosen(evolver: Evolution, seed: Seed) -> tuple[Operation, ...]:
    """The operations that are chosen for a seed while each gains something and leaves the text as it is."""
    args, state = evolver.args, State(seed.text)
    plan: list[Operation] = []
    for step in range(args.plan_length or args.operations_per_episode):
        if args.method == "evol_instruct":
            operation = drawn_operation(seed, step, evolver.operations, args)
        else:
            operation = evolver.choose(state, seed)
        plan.append(operation)
        names = (*state.operations, operation.name)
        state = State(seed.text, names, (*state.accepted, True), step + 1)
    return tuple(dict.fromkeys(plan))
