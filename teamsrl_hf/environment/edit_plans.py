"""Plans of edits: in go texts with operations, out come one request for all their edits, and the rows it made.

A model that can write one line writes several, one for each operation, and if wanted the answer below them. It never
has to write the finished instruction; code composes that of the lines that can be used:

    Task: Why does bread rise?

    Write one numbered line for each:
    1. Name an unusual reader for the answer.
    2. Ask for a mistaken belief. One question that starts with "What do people often get wrong about".

    1. a nine-year-old who has never baked
    2. What do people often get wrong about yeast?
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from ..models.base import Request, Sampling, Task
from ..text.edits import MAX_TOKENS, Edit, EditForm, Messages, compose, edit_problem, tidy
from ..text.gate.leaks import copies_example
from ..text.material import BLANK
from ..text.operations import Operation
from ..text.tokens import without_thoughts
from ..types import Reason, Role, TaskKind

ASK = "Write one numbered line for each:"
ASK_WITH_ANSWER = "Write one numbered line for each. Then, below [answer], do the task with all that the lines add:"
ASK_PACKED = """\
For each task write one numbered line for each of its points. Then, below [answer], do the task with all that its \
lines add."""

# Models set markers in bold or as headings, and continue on the same line.
_ITEM = re.compile(r"^[ \t>#*_`]*\[task[ \t]+(\d{1,4})\][*_`:]*", re.M | re.I)
_ANSWER = re.compile(r"^[ \t>#*_`]*\[answer\][*_`:]*", re.M | re.I)
_LINE = re.compile(r"^[ \t>*_`]*(\d{1,2})[.)][*_`]*[ \t]+(\S.*)$", re.M)


@dataclass(frozen=True)
class Step:
    """One operation of a plan, and the edit to ask for."""

    operation: Operation
    edit: Edit


@dataclass(frozen=True)
class Lost:
    """An operation whose line could not be used, with what the model wrote."""

    operation: Operation
    said: str
    problem: Reason


@dataclass(frozen=True)
class EditedRow:
    """What the lines for one text came to.

    Attributes:
        text: The text with every edit that could be used.
        carried_out: The operations that led to it.
        edits: The lines that it was composed of, or the first that could not be used if there are none.
        lost: Operations whose lines could not be used.
        answer: The answer; empty where none was asked for or there is none.
        problem: Why the row can't be used, or None.
    """

    text: str
    carried_out: tuple[Operation, ...] = ()
    edits: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    answer: str = ""
    problem: Reason | None = None


Item = tuple[str, tuple[Step, ...]]


def steps_for(text: str, plan: Sequence[Operation], sample_index: int = 0) -> tuple[Step, ...]:
    """The edits that carry out a plan on `text`, one for each operation; none where one of these has no edits.

    An operation that stands in the plan twice gets two edits. What comes before another task is left out, since that
    takes its place. A further sample asks for other edits.
    """
    steps: list[Step] = []
    for place, operation in enumerate(plan):
        edits = operation.edits_for(text, sample_index + plan[:place].count(operation))
        if not edits:
            return ()
        if edits[0].whole:
            steps, text = [], text.partition(BLANK)[0]
        steps.append(Step(operation, edits[0]))
    return tuple(steps)


# What is asked for.


def edit_plan_request(items: Sequence[Item], sampling: Sampling, sample_index: int, answers: bool) -> Request:
    """The request for the lines of each item, and for its answer where `answers` is true."""
    if not answers:
        most = MAX_TOKENS * sum(len(steps) for _, steps in items)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, most))
    plans = tuple(tuple(step.operation.name for step in steps) for _, steps in items)
    task = Task(TaskKind.PACK if answers else TaskKind.REWRITE, tuple(text for text, _ in items), plans)
    return Request(Role.EXPERT, edit_plan_messages(items, answers), sampling, sample_index, task)


def edit_plan_messages(items: Sequence[Item], answers: bool) -> Messages:
    """Chat messages: worked examples as earlier turns, filled as the request's items are, then the items.

    The examples are those of the edits: an instruction is shown with each edit that has an answer for it.
    """
    turns: list[dict[str, str]] = []
    examples = [found for found in (_examples(steps, answers) for _, steps in items) if found]
    for turn in range(-(-max(map(len, examples), default=0) // len(items))):
        shown = [found[(turn * len(items) + number) % len(found)] for number, found in enumerate(examples)]
        asked = [(text, [line.edit for line in lines]) for text, lines in shown]
        turns.append({"role": "user", "content": _asked(asked, answers)})
        turns.append({"role": "assistant", "content": _written(shown, answers)})
    asked = [(_shown(text, steps, answers), [step.edit for step in steps]) for text, steps in items]
    return (*turns, {"role": "user", "content": _asked(asked, answers)})


@dataclass(frozen=True)
class _Line:
    """A worked line: an edit, its answer, a response to the example's instruction, and what that gains by the line."""

    edit: Edit
    answer: str
    response: str
    gained: str


Shown = tuple[str, list[_Line]]


def _examples(steps: Sequence[Step], answers: bool) -> list[Shown]:
    """Each instruction of the edits' examples, with the lines of those edits that have an answer for it.

    Where a response is asked for, those that have none are left out.
    """
    found: dict[str, list[_Line]] = {}
    for edit in dict.fromkeys(step.edit for step in steps):
        responses = zip_longest(edit.examples, edit.responses, fillvalue=("", ""))
        for (instruction, answer), response in responses:
            found.setdefault(instruction, []).append(_Line(edit, answer, *response))
    return [(text, lines) for text, lines in found.items() if lines[0].response or not answers]


def _asked(items: Sequence[tuple[str, Sequence[Edit]]], answers: bool) -> str:
    asks = [_numbered([edit.ask for edit in edits]) for _, edits in items]
    if len(items) == 1:
        return f"Task: {items[0][0]}\n\n{ASK_WITH_ANSWER if answers else ASK}\n{asks[0]}"
    blocks = (f"[task {number}]\n{text}\n\n{ask}" for number, ((text, _), ask) in enumerate(zip(items, asks), start=1))
    return "\n\n".join((ASK_PACKED, *blocks))


def _written(shown: Sequence[Shown], answers: bool) -> str:
    """What a model is to write, for worked examples."""
    rows = []
    for _, lines in shown:
        told = [lines[0].response, *(line.gained for line in lines)]
        response = "\n".join(text for text in told if text)
        rows.append(_numbered([line.answer for line in lines]) + (f"\n[answer]\n{response}" if answers else ""))
    if len(rows) == 1:
        return rows[0]
    return "\n\n".join(f"[task {number}]\n{row}" for number, row in enumerate(rows, start=1))


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def _shown(text: str, steps: Sequence[Step], answers: bool) -> str:
    """The text, without its material where no line and no answer depends on it."""
    whole = answers or any(step.edit.form == EditForm.MATERIAL for step in steps)
    return text if whole else text.partition(BLANK)[0]


# What is made of it.


def read_edited(said: str, items: Sequence[Item], answers: bool, cut: bool = False) -> list[EditedRow]:
    """The rows that a response holds, one for each item.

    A line that can't be used costs its operation, or the row if there is no other. One that was to replace the task
    costs the row, since what follows it is about another task. An item is malformed if it is missing or its markers
    stand twice; others stay valid.

    Args:
        cut: `max_tokens` cut the response; its last line, or answer, is then of no use.
    """
    said = without_thoughts(said).replace("\r\n", "\n")
    blocks = _blocks(said, len(items))
    last = max(blocks, default=0)
    missing = Reason.CUT_OFF if cut else Reason.MALFORMED
    rows = []
    for number, (text, steps) in enumerate(items, start=1):
        block = blocks.get(number)
        if block is None:
            rows.append(EditedRow(text, problem=missing))
        else:
            rows.append(_row(text, steps, block, answers, cut and number == last))
    return rows


def _blocks(said: str, count: int) -> dict[int, str]:
    """What is said of each item. A marker that stands twice may end the item before it too soon, which is left out."""
    if count == 1:
        return {1: said}
    markers = [*_ITEM.finditer(said)]
    numbers = [int(marker[1]) for marker in markers]
    ends = [*(marker.start() for marker in markers[1:]), len(said)]
    twice = {number for number in numbers if numbers.count(number) > 1}
    found = {number: said[marker.end() : end] for number, marker, end in zip(numbers, markers, ends)}
    return {
        number: block for number, block in found.items() if not twice & {number, number + 1} and 1 <= number <= count
    }


def _row(text: str, steps: Sequence[Step], block: str, answers: bool, cut: bool) -> EditedRow:
    lines, *answered = _ANSWER.split(block)
    row = _composed(text, steps, _lines(lines, len(steps), cut and not answered), cut and not answered)
    if row.problem or not answers:
        return row
    if len(answered) != 1 or not answered[0].strip():
        return replace(row, problem=Reason.CUT_OFF if cut and not answered else Reason.MALFORMED)
    answer = answered[0].strip()
    shown = [part for step in steps for response in step.edit.responses for part in response if part]
    copied = Reason.COPIED_ANSWER if copies_example(answer, text, shown) else None
    return replace(row, answer=answer, problem=Reason.ANSWER_CUT_OFF if cut else copied)


def _lines(said: str, count: int, cut: bool) -> dict[int, str]:
    """The lines by their numbers, without one that stands twice; in their order where the model numbered none."""
    if cut:
        said = said.rpartition("\n")[0]
    numbered = [(int(line[1]), line[2]) for line in _LINE.finditer(said)]
    if not numbered:
        plain = [line for line in said.splitlines() if line.strip()]
        numbered = [*enumerate(plain, start=1)] if len(plain) == count else []
    numbers = [number for number, _ in numbered]
    return {number: tidy(line) for number, line in numbered if numbers.count(number) == 1}


def _composed(text: str, steps: Sequence[Step], lines: Mapping[int, str], cut: bool) -> EditedRow:
    """The text with all lines that can be used, each held against the task that it was asked for."""
    task, made, carried_out, edits, lost = text, text, [], [], []
    for number, (operation, edit) in enumerate(((step.operation, step.edit) for step in steps), start=1):
        said = lines.get(number, "")
        problem = Reason.REPETITIVE_EDIT if said in edits else edit_problem(edit, task, said)
        if problem:
            lost.append(Lost(operation, said, Reason.CUT_OFF if cut and not said else problem))
        else:
            made = compose(edit, made, said)
            carried_out.append(operation)
            edits.append(said)
        if edit.whole:
            task = made
            if problem:
                break
    if not carried_out:  # The row says why in the place of the first of these.
        return EditedRow(text, edits=(lost[0].said,), lost=tuple(lost[1:]), problem=lost[0].problem)
    return EditedRow(made, tuple(carried_out), tuple(edits), tuple(lost))
