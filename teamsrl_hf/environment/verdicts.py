"""Rewrites judged from outside a run: in goes a file of raw rewrites, out come gate, reviewer and reward for each."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..calls import run_async
from ..errors import UserError
from ..models.base import Generator
from ..text.gate.chatter import strip_chatter
from ..text.gate.leaks import shared_phrases
from ..text.operations import OPERATIONS, Operation
from ..text.rules import violations
from ..types import Finish, Reason, Review, Seed, Trajectory, Transition, Verdict
from .review import ask_verdict, novelty_reward, validity_reward

_WANTED = {"id": str, "operation": str, "instruction": str, "raw": str, "finish_reason": str}
AT_ONCE = 64  # Requests to a reviewer that are under way together.


@dataclass(frozen=True)
class RawRewrite:
    """One line of a file: what a model returned when it was asked to carry out `operation` on `instruction`."""

    id: str
    operation: str
    instruction: str
    raw: str
    finish_reason: str = Finish.STOP


def read_rewrites(path: str | Path) -> list[RawRewrite]:
    """The rewrites of a file of JSON lines; further keys are left out.

    Raises:
        UserError: There is no such file, or a line is no object with the strings of `RawRewrite`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Can't read {path}: {error}. Give a file of JSON lines in UTF-8.") from error
    rows = [_row(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no line; write one JSON object a line, with {', '.join(_WANTED)}.")
    return rows


def _row(line: str, number: int, path: str | Path) -> RawRewrite:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"Line {number} of {path} is no JSON: {error}. Write one object a line.") from error
    if not isinstance(found, dict):
        raise UserError(f"Line {number} of {path} is no object; write one with {', '.join(_WANTED)}.")
    values = {"finish_reason": Finish.STOP, "id": str(number)} | {
        name: found[name] for name in _WANTED if name in found
    }
    for name, kind in _WANTED.items():
        if not isinstance(values.get(name), kind):
            raise UserError(f"Line {number} of {path} has {name} {values.get(name)!r}, wanted a string; correct it.")
    return RawRewrite(**values)


def judge_rows(
    rows: Sequence[RawRewrite],
    reviewer: Generator | None = None,
    operations: Sequence[Operation] = OPERATIONS,
    examples: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Gate, reviewer and default reward of each rewrite, as {"id", "passed", "reason", "clean", "reward"}.

    The reward is None where the reviewer's call failed: nothing is known then.

    Args:
        reviewer: Asked about what passes the gate; None stops there.
        operations: Where the names in the rows are looked up; of others nothing is known, and fewer rules apply.
        examples: Worked examples that the prompt showed. Phrases that rewrites of unlike instructions share are added.
    """
    known = {operation.name: operation for operation in operations}
    cleaned = [strip_chatter(row.raw, row.instruction) for row in rows]
    phrases = (*examples, *shared_phrases((row.instruction, text) for row, text in zip(rows, cleaned)))
    reviews = [_gate(row, text, known.get(row.operation), phrases) for row, text in zip(rows, cleaned)]
    if reviewer is not None:
        reviews = run_async(_ask(rows, cleaned, reviews, reviewer))
    steps = [
        Transition(row.instruction, row.operation, text, review, "")
        for row, text, review in zip(rows, cleaned, reviews)
    ]
    chains = [Trajectory(Seed(row.id, row.instruction), (step,)) for row, step in zip(rows, steps)]
    return [
        {
            "id": row.id,
            "passed": step.review.passed,
            "reason": step.review.reason,
            "clean": step.rewrite,
            "reward": None if valid[0] is None or new[0] is None else round(valid[0] + new[0], 6),
        }
        for row, step, valid, new in zip(rows, steps, validity_reward(chains), novelty_reward(chains))
    ]


def _gate(row: RawRewrite, text: str, operation: Operation | None, phrases: Sequence[str]) -> Review:
    if row.finish_reason == Finish.LENGTH:
        return Review(Verdict.UNREADABLE, (Reason.CUT_OFF,))
    return Review(Verdict.NOT_EQUAL, violations(row.instruction, text, operation, examples=phrases))


async def _ask(
    rows: Sequence[RawRewrite], cleaned: Sequence[str], reviews: Sequence[Review], reviewer: Generator
) -> list[Review]:
    """The reviews, with the reviewer's in place of those that passed the gate."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask(row: RawRewrite, text: str, review: Review) -> Review:
        if not review.passed:
            return review
        async with slots:
            return await ask_verdict(row.instruction, text, reviewer)

    return await asyncio.gather(*map(ask, rows, cleaned, reviews))
