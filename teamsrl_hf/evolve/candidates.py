"""Candidates: in go seeds and transitions, out come candidates with the calls that were spent on them.

Also plans, of which candidates are made; the request for a candidate's answer; and whether the answer keeps the
constraints that code can check. One that fails is asked for again, or rejected by the name of the verifier.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace

from ..environment.rewriting import appended
from ..models.base import Completion, Generator, Request, Task, Wrapper
from ..text.operations import Operation
from ..text.rules import response_violations
from ..types import BY_RULES, CallKind, Candidate, Finish, Reason, Role, Seed, TaskKind, Transition, Verifier
from ..verifiers.proofs import named_in, said, verified
from .config import EvolverConfig

# Ids of the seeds whose chains make the calls of this task, for whoever counts them.
CHAIN: ContextVar[tuple[str, ...]] = ContextVar("chain", default=())

AGAIN = """\
Your answer does not keep everything that the instruction asks for. It fails here:

{failed}

Answer the instruction again, in full, and keep this and all the rest. Send back nothing but the answer."""


@dataclass(frozen=True)
class Added:
    """A constraint that code appended in the free walk, and the operation that drew it."""

    operation: Operation
    sentence: str
    verifier: Verifier


@dataclass(frozen=True)
class Planned:
    """Operations that gained something in the free walk, to be paid for; code has carried out those that are `Added`.

    `step` is where in the walk the plan ends; `calls` are those of the walk since the plan before it; `verifiers` are
    the constraints of the text at its end.
    """

    seed: Seed
    step: int
    steps: tuple[Operation | Added, ...]
    calls: Mapping[CallKind, int]
    verifiers: tuple[Verifier, ...] = ()

    @property
    def plan(self) -> tuple[Operation, ...]:
        """What is left to the expert."""
        return tuple(one for one in self.steps if isinstance(one, Operation))

    @property
    def added(self) -> tuple[Added, ...]:
        """What code added and no later operation dropped."""
        return tuple(one for one in self.steps if isinstance(one, Added) and one.verifier in self.verifiers)

    @property
    def text(self) -> str:
        """What the expert starts from: the seed with the constraints, which an answer in the same call must keep."""
        return self.completed(self.seed.text)

    def completed(self, text: str) -> str:
        """A text with every constraint in it that it does not say."""
        for one in self.added:
            text = text if named_in(text, one.verifier) else appended(text, one.sentence)
        return text

    def path(self, done: Sequence[Operation]) -> tuple[str, ...]:
        """The names of the operations that led to the text, of which the expert carried out `done`."""
        return (*(one.operation.name for one in self.added), *names(done))


def step_of(operation: Operation, transition: Transition) -> Operation | Added:
    """What a step of the free walk that passed adds to the plan."""
    if operation.proof and transition.rewriter == BY_RULES:
        return Added(operation, transition.edit, transition.verifiers[-1])
    return operation


class Counted(Wrapper):
    """A model as one chain sees it: it counts calls, makes none twice, and repeats one that was cut off, if wanted.

    A chain makes the same request again when it tries an operation that has left a text unchanged.
    """

    def __init__(self, generator: Generator, retry_cut: bool = False):
        super().__init__(generator)
        self.retry_cut, self.calls = retry_cut, 0
        self._known: dict[tuple, Completion] = {}

    async def __call__(self, request: Request) -> Completion:
        request = self.as_asked(request)
        completion = await self._ask(request)
        if self.retry_cut and completion.finish_reason == Finish.LENGTH and not completion.error:
            more = replace(request.sampling, max_tokens=2 * request.sampling.max_tokens)
            completion = await self._ask(replace(request, sampling=more))
        return completion

    async def _ask(self, request: Request) -> Completion:
        contents = tuple(message["content"] for message in request.messages)
        key = (request.role, contents, request.sampling, request.sample_index)
        known = self._known.get(key)
        if known is None:
            self.calls += 1
            known = self._known[key] = await self.generator(request)
        return known

    def spent(self) -> int:
        """Calls since last asked."""
        calls, self.calls = self.calls, 0
        return calls


def answer_request(candidate: Candidate, args: EvolverConfig) -> Request:
    """The request for a candidate's answer."""
    return text_request(candidate.transition.rewrite, args)


def text_request(text: str, args: EvolverConfig) -> Request:
    """The request for the answer to an instruction: its text, and nothing else."""
    question = ({"role": "user", "content": text},)
    return Request(Role.EXPERT, question, args.sampling, task=Task(TaskKind.ANSWER, (text,)))


def answered(candidate: Candidate, completion: Completion, calls: int = 1) -> Candidate:
    """The candidate with its answer, and the call or calls that it took besides those before."""
    response = "" if completion.error else completion.text.strip()
    return replace(
        candidate,
        transition=replace(candidate.transition, error=completion.error),
        response=response,
        responder=completion.model,
        calls=_sum(Counter(dict(candidate.calls)) + Counter({CallKind.ANSWER: calls})),
    )


def answer_problem(completion: Completion, instruction: str) -> str | None:
    """Why an answer to `instruction` can't be used, or None."""
    if completion.error:
        return Reason.CALL_FAILED
    broken = response_violations(completion.text, completion.finish_reason, instruction)
    problem = next(iter(broken), None)
    return Reason.ANSWER_CUT_OFF if problem == Reason.CUT_OFF else problem


async def ask(candidate: Candidate, request: Request, expert: Counted) -> tuple[Candidate, str | None]:
    """The candidate with the answer to a request, and why it can't be used."""
    completion = await expert(request)
    problem = answer_problem(completion, candidate.transition.rewrite)
    return answered(candidate, completion, expert.spent()), problem


async def prove(candidate: Candidate, expert: Counted, args: EvolverConfig) -> tuple[Candidate, str | None]:
    """The candidate with an answer that passes its verifiers, and the id of the first that even its last one fails."""
    if not candidate.transition.verifiers:
        return candidate, None
    candidate = checked(candidate)
    candidate = replace(candidate, failed_first=tuple(one.id for one in failed(candidate)))
    for _ in range(args.answer_retries if candidate.failed_first else 0):
        again, problem = await ask(candidate, again_request(candidate, args), expert)
        if problem is not None:  # The answer before failed for one reason alone.
            return replace(candidate, calls=again.calls), candidate.failed_first[0]
        candidate = checked(again)
        if not failed(candidate):
            break
    return candidate, next((one.id for one in failed(candidate)), None)


def checked(candidate: Candidate) -> Candidate:
    """The candidate with what its verifiers say of its answer."""
    return replace(candidate, verified=verified(candidate.response, candidate.transition.verifiers))


def failed(candidate: Candidate) -> tuple[Verifier, ...]:
    """The verifiers that a checked candidate's answer fails."""
    pairs = zip(candidate.transition.verifiers, candidate.verified, strict=True)
    return tuple(one for one, passed in pairs if not passed)


def again_request(candidate: Candidate, args: EvolverConfig) -> Request:
    """The request for another answer, which shows the last one and says what failed."""
    text = candidate.transition.rewrite
    wrong = "\n".join(f"- {said(one)}" for one in failed(candidate))
    turns = (
        {"role": "user", "content": text},
        {"role": "assistant", "content": candidate.response},
        {"role": "user", "content": AGAIN.format(failed=wrong)},
    )
    return Request(Role.EXPERT, turns, args.sampling, task=Task(TaskKind.ANSWER, (text,)))


def new_candidate(
    seed: Seed,
    parent_id: str,
    step: int,
    path: tuple[str, ...],
    transition: Transition,
    calls: Mapping[CallKind, int],
    *marks: str,
) -> Candidate:
    """A candidate without an answer; `marks` tell apart several of one step that have the same text."""
    content = "\0".join((seed.id, str(step), transition.operation, transition.rewrite, *marks))
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Candidate(f"r{digest}", seed, parent_id, step, path, transition, calls=_sum(calls))


def _sum(calls: Mapping[CallKind, int]) -> tuple[tuple[CallKind, int], ...]:
    return tuple(sorted((kind, count) for kind, count in calls.items() if count))


def names(plan: Sequence[Operation]) -> tuple[str, ...]:
    """The names of a plan's operations."""
    return tuple(operation.name for operation in plan)
