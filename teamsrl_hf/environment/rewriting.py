"""One rewrite: in go an operation and a text, out come the requests to a model and what is made of its answers.

Where the operation has edits, the model is asked for one small thing and code composes the rewrite; where it has none,
or the model writes whole texts anyway, the answer is the rewrite.
"""

from dataclasses import dataclass, replace

from ..models.base import Completion, Generator, Request, Sampling, Task, writes_whole
from ..text.edits import MAX_TOKENS, Edit, compose, edit_messages, edit_problem, tidy
from ..text.gate.chatter import strip_chatter
from ..text.operations import Operation, rewrite_messages
from ..types import Finish, Reason, Review, Role, TaskKind, Transition, Verdict


@dataclass(frozen=True)
class Rewrite:
    """A rewrite that is yet to be reviewed. `edit` is what the model wrote of it, empty if it wrote all of it."""

    text: str
    model: str
    edit: str = ""


async def ask_rewrite(
    operation: Operation, text: str, generator: Generator, role: Role, sampling: Sampling, sample_index: int = 0
) -> Rewrite | Transition:
    """Ask for a rewrite of `text`: the rewrite, or the transition that a step without one makes.

    An edit that can't be used is followed by another of the operation, see `edits.in_turn`; the last one says why the
    step failed.
    """
    edits = () if writes_whole(generator) else operation.edits_for(text, sample_index)
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
    return Request(role, edit_messages(edit, text), sampling, sample_index, task)


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
    if problem := edit_problem(edit, text, said):
        verdict = Review(Verdict.UNREADABLE, (problem,))
        return Transition(text, operation.name, text, verdict, completion.model, edit=said)
    return Rewrite(compose(edit, text, said), completion.model, said)
