"""Candidates: in go seeds and transitions, out come candidates with the calls that were spent on them.

Also the request for a candidate's answer, and what is made of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..models.base import Completion, Generator, Request, Task, Wrapper
from ..text.operations import Operation
from ..text.rules import response_violations
from ..types import CallKind, Candidate, Finish, Reason, Role, Seed, TaskKind, Transition
from .config import EvolverConfig


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
    """The request for a candidate's answer: its text, and nothing else."""
    text = candidate.transition.rewrite
    question = ({"role": "user", "content": text},)
    return Request(Role.EXPERT, question, args.sampling, task=Task(TaskKind.ANSWER, (text,)))


def answered(candidate: Candidate, completion: Completion, calls: int = 1) -> Candidate:
    """The candidate with its answer, and the call or calls that it took."""
    response = "" if completion.error else completion.text.strip()
    return replace(
        candidate,
        transition=replace(candidate.transition, error=completion.error),
        response=response,
        responder=completion.model,
        calls=_sum({**dict(candidate.calls), CallKind.ANSWER: calls}),
    )


def answer_problem(completion: Completion, instruction: str) -> str | None:
    """Why an answer to `instruction` can't be used, or None."""
    if completion.error:
        return Reason.CALL_FAILED
    broken = response_violations(completion.text, completion.finish_reason, instruction)
    problem = next(iter(broken), None)
    return Reason.ANSWER_CUT_OFF if problem == Reason.CUT_OFF else problem


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
