"""Judge rewrites of any source: the gate, a reviewer if one is named, and the default reward.

    teamsrl review rewrites.jsonl --output judged.jsonl
    teamsrl review rewrites.jsonl --reviewer endpoint:MODEL@BASE_URL --output judged.jsonl

A line of the input is {"id", "operation", "instruction", "raw", "finish_reason"}: `raw` is what a model returned. A
line of the output is {"id", "passed", "reason", "clean", "reward"}, in the same order; `clean` is the rewrite without
what surrounds it. Use it to see what the rules reject, and how a reviewer judges rows whose quality you know.
"""

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import guarded, parse
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError


@dataclass
class ReviewArguments:
    """What is judged, by whom, and where the verdicts go."""

    rewrites: str = field(metadata={"help": "JSON lines with id, operation, instruction, raw and finish_reason."})
    output: str = field(metadata={"help": "File for the verdicts, one JSON line each."})
    reviewer: str | None = field(
        default=None, metadata={"help": "Model that is asked about what passes the rules; left out: rules alone."}
    )

    def __post_init__(self) -> None:
        both = os.path.exists(self.output) and os.path.exists(self.rewrites)
        if both and os.path.samefile(self.output, self.rewrites):
            raise UserError(f"--output {self.output} is the input itself; name another file.")


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Judge the file, write the verdicts and print the counts by reason. Returns the verdicts."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--rewrites")
    (args,) = parse((ReviewArguments,), argv, "teamsrl review", __doc__)
    from teamsrl_hf.environment.verdicts import judge_rows, read_rewrites
    from teamsrl_hf.models.factory import make_generator

    rows = read_rewrites(args.rewrites)
    judged = judge_rows(rows, make_generator(args.reviewer) if args.reviewer else None)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in judged)
    try:
        Path(args.output).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"Can't write {args.output}: {error.strerror}. Name a file in a folder that exists."
        ) from error
    reasons = Counter(row["reason"] for row in judged if not row["passed"])
    print(f"passed    {sum(row['passed'] for row in judged)} of {len(judged)}")
    print(f"rejected  {', '.join(f'{reason} {count}' for reason, count in reasons.most_common()) or 'none'}")
    return judged


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
