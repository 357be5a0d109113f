"""Rewrites: in go operations and a text, out come the requests to a model and what is made of its answers.

Where the operation has edits, the model is asked for one small thing and code composes the rewrite; where it has none,
or the model writes whole texts anyway, the answer is the rewrite.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..models.base import Completion, Generator, Request, Sampling, Task, writes_whole
from ..text.edits import MAX_TOKENS, Edit, compose, edit_messages, edit_problem, tidy
from ..text.gate.chatter import strip_chatter
from ..text.operations import Operation, rewrite_messages
from ..text.plans import pack_messages, plan_messages
from ..types import BY_RULES, Finish, Reason, Review, Role, TaskKind, Transition, Verdict, Verifier
from ..verifiers.proofs import Constraint, named_in, still_said

logger = logging.getLogger(__name__)

_SENTENCE = Edit("constraint", "")
_REWORD = Edit(
    "constraint",
    'Say this requirement in other words, in one sentence. Keep every number and quoted word: "{sentence}"',
    fresh=False,
)
_WEAVE = (
    "Add this requirement to the instruction, in words that fit it. Keep its meaning, and every number and quoted "
    'word in it: "{sentence}"'
)


@dataclass(frozen=True)
class Rewrite:
    """A rewrite that is yet to be reviewed. `edit` is what the model wrote of it, empty if it wrote all of it.

    `verifiers` are the constraints in it that code can check.
    """

    text: str
    model: str
    edit: str = ""
    verifiers: tuple[Verifier, ...] = ()


async def ask_rewrite(
    operation: Operation,
    text: str,
    generator: Generator,
    role: Role,
    sampling: Sampling,
    sample_index: int = 0,
    carried: Sequence[Verifier] = (),
) -> Rewrite | Transition:
    """Ask for a rewrite of `text`: the rewrite, or the transition that a step without one makes.

    Where the operation adds a constraint that code can check, code appends it, and no model is asked; nor has a
    reviewer to say whether anything was gained. Or a model words it. `carried` are the text's verifiers so far.

    An edit that can't be used is followed by another of the operation, see `edits.in_turn`; the last one says why the
    step failed.
    """
    constraint = operation.proof and operation.proof.constraint(text, carried, sample_index)
    if operation.proof and constraint:
        if not operation.proof.by_model:
            return _appended(operation, text, constraint, carried)
        operation = worded(operation, constraint)
    made = await _ask(operation, text, generator, role, sampling, sample_index)
    if isinstance(made, Transition):
        return made
    if constraint and not named_in(made.text, constraint.verifier):
        verdict = Review(Verdict.UNREADABLE, (Reason.CONSTRAINT_NOT_SAID,))
        return Transition(text, operation.name, made.text, verdict, made.model, edit=made.edit)
    new = (constraint.verifier,) if constraint else ()
    return replace(made, verifiers=(*still_said(carried, made.text), *new))


def first_request(
    operation: Operation, text: str, generator: Generator, role: Role, sampling: Sampling
) -> Request | None:
    """The request that `ask_rewrite` makes first of a text without verifiers; None where code does it alone."""
    if operation.proof and (constraint := operation.proof.constraint(text, (), 0)):
        if not operation.proof.by_model:
            return None
        operation = worded(operation, constraint)
    if edits := edits_asked(operation, text, generator):
        return edit_request(operation, edits[0], text, role, sampling)
    return rewrite_request(operation, text, role, sampling)


def edits_asked(operation: Operation, text: str, generator: Generator, sample_index: int = 0) -> tuple[Edit, ...]:
    """The edits that a model is asked for in turn; none where it is asked for the whole rewrite."""
    return () if writes_whole(generator) else operation.edits_for(text, sample_index)


def appended(text: str, sentence: str) -> str:
    """A text with one more sentence, before its material."""
    return compose(_SENTENCE, text, sentence)


def _appended(operation: Operation, text: str, constraint: Constraint, carried: Sequence[Verifier]) -> Transition:
    rewrite = appended(text, constraint.sentence)
    verifiers = (*still_said(carried, rewrite), constraint.verifier)
    review = Review(Verdict.NOT_EQUAL)
    return Transition(text, operation.name, rewrite, review, BY_RULES, edit=constraint.sentence, verifiers=verifiers)


def worded(operation: Operation, constraint: Constraint) -> Operation:
    """The operation that asks a model to word a constraint: as an edit where it has edits, else in the whole text."""
    edit = replace(_REWORD, ask=_REWORD.ask.format(sentence=constraint.sentence))
    sentence = _WEAVE.format(sentence=constraint.sentence)
    return replace(operation, sentence=sentence, edits=(edit,) if operation.edits else ())


async def _ask(
    operation: Operation, text: str, generator: Generator, role: Role, sampling: Sampling, sample_index: int
) -> Rewrite | Transition:
    edits = edits_asked(operation, text, generator, sample_index)
    if not edits:
        completion = await generator(rewrite_request(operation, text, role, sampling, sample_index))
        failed = no_rewrite(text, operation.name, completion)
        return failed or Rewrite(strip_chatter(completion.text, text), completion.model)
    for edit in edits:
        completion = await generator(edit_request(operation, edit, text, role, sampling, sample_index))
        made = _composed(operation, edit, text, completion)
        if isinstance(made, Rewrite) or made.error:
            break
    return made


def rewrite_request(operation: Operation, text: str, role: Role, sampling: Sampling, sample_index: int = 0) -> Request:
    """The request to carry out `operation` on `text` and to write the whole rewrite."""
    task = Task(TaskKind.REWRITE, (text,), ((operation.name,),))
    return Request(role, rewrite_messages(operation, text), sampling, sample_index, task)


def edit_request(
    operation: Operation, edit: Edit, text: str, role: Role, sampling: Sampling, sample_index: int = 0
) -> Request:
    """The request for one edit; it needs few tokens, however many an answer may have."""
    sampling = replace(sampling, max_tokens=min(sampling.max_tokens, MAX_TOKENS))
    task = Task(TaskKind.REWRITE, (text,), ((operation.name,),))
    scored = edit.min_logprob is not None
    return Request(role, edit_messages(edit, text), sampling, sample_index, task, scored=scored)


def plan_request(text: str, plan: Sequence[Operation], sampling: Sampling) -> Request:
    """The request to carry out a plan on `text`."""
    task = Task(TaskKind.REWRITE, (text,), (_names(plan),))
    return Request(Role.EXPERT, plan_messages(text, plan), sampling, task=task)


def pack_request(
    items: Sequence[tuple[str, Sequence[Operation]]], sampling: Sampling, sample_index: int = 0
) -> Request:
    """The request to carry out the plan of each text, and to answer the results."""
    task = Task(TaskKind.PACK, tuple(text for text, _ in items), tuple(_names(plan) for _, plan in items))
    return Request(Role.EXPERT, pack_messages(items), sampling, sample_index, task)


def _names(plan: Sequence[Operation]) -> tuple[str, ...]:
    return tuple(operation.name for operation in plan)


def no_rewrite(text: str, operation: str, completion: Completion) -> Transition | None:
    """The transition that a failed or cut call makes, or None if there is a whole text."""
    if completion.error:
        verdict = Review(Verdict.UNREADABLE, (Reason.CALL_FAILED,))
        return Transition(text, operation, text, verdict, completion.model, completion.error)
    if completion.finish_reason == Finish.LENGTH:
        verdict = Review(Verdict.UNREADABLE, (Reason.CUT_OFF,))
        return Transition(text, operation, completion.text, verdict, completion.model)
    return None


def _composed(operation: Operation, edit: Edit, text: str, completion: Completion) -> Rewrite | Transition:
    """The rewrite that the answer makes, or the transition of a step that fails by it."""
    said = tidy(completion.text)
    line_ended = "\n" in completion.text.strip()
    if failed := None if line_ended and not completion.error else no_rewrite(text, operation.name, completion):
        return failed if failed.error else replace(failed, rewrite=text, edit=said)
    if problem := edit_problem(edit, text, said) or _unsure(edit, completion):
        verdict = Review(Verdict.UNREADABLE, (problem,))
        return Transition(text, operation.name, text, verdict, completion.model, edit=said)
    return Rewrite(compose(edit, text, said), completion.model, said)


def _unsure(edit: Edit, completion: Completion) -> Reason | None:
    if edit.min_logprob is None:
        return None
    if not completion.scores:
        _say_unscored(completion.model)
        return None
    return Reason.UNSURE_EDIT if completion.scores[0] < edit.min_logprob else None


@lru_cache
def _say_unscored(model: str) -> None:
    logger.info("%s does not say how sure it is of an answer, so no edit of its is rejected as unsure.", model)
