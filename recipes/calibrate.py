"""Measure how well a reviewer answers, on labelled rewrites, before paying it or relying on it.

    teamsrl calibrate --reviewer endpoint:MODEL@BASE_URL --output calibration.json
    teamsrl calibrate --reviewer transformers:MODEL --rows labelled.jsonl --review_questions different clear \\
        --output calibration.json

Without --rows it asks about 80 built-in rewrites, 40 for each question. A line of a file of yours is {"operation",
"instruction", "rewrite", "label"}; the label is "good", "unchanged" (it asks for the same as before), "unclear" (it
can't be answered as it stands) or "easier" (it asks for less). `teamsrl evolve` and `teamsrl train-policy` take the
result as --calibration. Exit status 0 even where the reviewer is no better than chance; a warning says so.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from teamsrl_hf.calls import run_async
from teamsrl_hf.commands.arguments import guarded, parse
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.environment.calibration import Calibration, calibrate, read_labelled
from teamsrl_hf.environment.review import Reviewer, Reviewing
from teamsrl_hf.errors import UserError
from teamsrl_hf.models.factory import check_named, make_generator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.questions import DIFFERENT, select_questions

logger = logging.getLogger("teamsrl_hf.calibrate")


@dataclass
class CalibrateArguments:
    """Which model is measured, on what, and where the result goes."""

    output: str = field(metadata={"help": "File for the calibration, JSON."})
    reviewer: str | dict | None = field(default=None, metadata={"help": "Required: the model to measure."})
    rows: str | None = field(
        default=None, metadata={"help": "Labelled rewrites, JSON lines; left out: the built-in ones."}
    )
    review_questions: list[str] = field(
        default_factory=lambda: [DIFFERENT.name], metadata={"help": "Questions to measure: different, clear, harder."}
    )
    ledger: str | None = field(
        default=None, metadata={"help": "SQLite record of all calls; OUTPUT with the ending .sqlite if left out."}
    )

    def __post_init__(self) -> None:
        select_questions(self.review_questions)


def main(argv: list[str] | None = None) -> Calibration:
    """Ask, print accuracies and write the file. Returns the calibration."""
    (args,) = parse((CalibrateArguments,), argv, "teamsrl calibrate", __doc__)
    check_named(reviewer=args.reviewer)
    rows, output = read_labelled(args.rows), Path(args.output)
    if not output.parent.is_dir():
        raise UserError(f"There is no folder {output.parent} for --output; make it, or name another.")
    model = make_generator(args.reviewer)
    try:
        with Ledger(args.ledger or output.with_suffix(".sqlite")) as ledger:
            reviewer = ledger.record(Reviewer(model, Reviewing(tuple(args.review_questions))))
            found = calibrate(reviewer, rows, args.review_questions)
            ledger.conclude()
    finally:
        if hasattr(model, "close"):
            run_async(model.close())
    found.save(output)
    report(found)
    return found


def report(found: Calibration) -> None:
    """Print what was measured; warn where a reviewer is no better than chance."""
    print(f"reviewer   {found.reviewer}")
    for name, one in found.questions.items():
        low, high = one.interval
        print(
            f"{name:10} accuracy {one.accuracy:.3f} on {one.rows} rows (95 % interval {low:.3f} to {high:.3f}, "
            f"chance {one.chance:.3f}), {one.unreadable} unreadable, {one.failed} failed, offset {one.offset:.2f} nats"
        )
        if not one.better_than_chance:
            logger.warning("%s", one.warning(name, found.reviewer))


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
