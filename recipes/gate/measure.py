"""Measure the gate on labelled rewrites: how much of what passes is good, and what each rule finds.

    python recipes/gate/measure.py --labelled rewrites.jsonl --results recipes/gate/results.json

A line holds `instruction`, `operation`, `raw` (what a model returned), `finish_reason` and `label`: "good", or
"good_inside" where the part `clean` of it is good, or anything else for a fault. Each rule is measured alone on all
rows; the gate, on what it keeps. With --results the numbers are written there and into README.md beside it.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import guarded, parse
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.environment.verdicts import RawRewrite, judge_rows, read_rewrites
from teamsrl_hf.text.gate.leaks import added_text, shared_phrases
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.text.rules import REWRITE_RULES, Rewrite
from teamsrl_hf.types import Finish, Reason

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- tables: written by measure.py -->", "<!-- end of tables -->"
OPERATION = {operation.name: operation for operation in OPERATIONS}


@dataclass
class MeasureArguments:
    """What is measured, and where the numbers go."""

    labelled: str = field(metadata={"help": "JSON lines of labelled rewrites."})
    results: str | None = field(default=None, metadata={"help": "JSON file for the numbers, beside a README.md."})


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, write them if asked. Returns the numbers."""
    (args,) = parse((MeasureArguments,), argv, "measure.py", __doc__)
    found = measure(args.labelled)
    print(render(found))
    if args.results:
        path = Path(args.results)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        readme = path.with_name("README.md")
        readme.write_text(with_tables(readme.read_text(encoding="utf-8"), found), encoding="utf-8")
    return found


def measure(path: str) -> dict[str, Any]:
    """Counts for the gate, for each half of the rows, and for each rule; and how well the default reward ranks."""
    rows = read_rewrites(path)
    labels = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    judged = judge_rows(rows)
    good = [
        label["label"] == "good" or (label["label"] == "good_inside" and row["clean"] == label["clean"])
        for label, row in zip(labels, judged)
    ]
    places = list(range(len(rows)))
    random.Random(0).shuffle(places)
    halves = {"first half": places[::2], "second half": places[1::2], "all rows": places}
    return {
        "gate": {name: _of_gate(judged, good, labels, chosen) for name, chosen in halves.items()},
        "rules": _of_rules(rows, [row["clean"] for row in judged], good),
    }


def _of_gate(
    judged: Sequence[Any], good: Sequence[bool], labels: Sequence[Any], chosen: Sequence[int]
) -> dict[str, Any]:
    passed = [place for place in chosen if judged[place]["passed"]]
    kept = sum(good[place] for place in passed)
    wrong = Counter(labels[place]["label"] for place in passed if not good[place])
    rewards = {place: judged[place]["reward"] for place in chosen if judged[place]["reward"] is not None}
    return {
        "rows": len(chosen),
        "good": sum(good[place] for place in chosen),
        "passed": len(passed),
        "passed_and_good": kept,
        "auc": _auc([(reward, good[place]) for place, reward in rewards.items()]),
        "passed_but": dict(wrong.most_common()),
    }


def _of_rules(rows: Sequence[RawRewrite], cleaned: Sequence[str], good: Sequence[bool]) -> dict[str, Any]:
    """For each rule how many bad and good rows it rejects, alone and where no rule above it does."""
    phrases = shared_phrases((row.instruction, text) for row, text in zip(rows, cleaned))
    found = {name: {"bad": 0, "good": 0, "first": 0} for name in (Reason.CUT_OFF, *REWRITE_RULES)}
    for row, text, is_good in zip(rows, cleaned, good):
        edit = added_text(row.instruction, text)
        case = Rewrite(row.instruction, text, (OPERATION[row.operation],), edit, (), phrases)
        broken: list[str] = [Reason.CUT_OFF] if row.finish_reason == Finish.LENGTH else []
        broken += [name for name, breaks in REWRITE_RULES.items() if breaks(case)]
        for name in broken:
            found[name]["good" if is_good else "bad"] += 1
        if broken:
            found[broken[0]]["first"] += 1
    return found


def _auc(scored: Sequence[tuple[float, bool]]) -> float | None:
    """The share of pairs of a good and a bad row in which the good one is paid more; half a pair for a tie."""
    good = [score for score, is_good in scored if is_good]
    bad = [score for score, is_good in scored if not is_good]
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in bad)
    return round(wins / (len(good) * len(bad)), 3) if good and bad else None


def render(found: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines = ["| rows | good | pass | precision | recall | AUC of the reward |", "|---|---|---|---|---|---|"]
    for name, counts in found["gate"].items():
        kept, passed, good = counts["passed_and_good"], counts["passed"], counts["good"]
        shares = f"{_share(kept, passed)} | {_share(kept, good)} | {counts['auc']}"
        lines.append(f"| {name}, {counts['rows']} | {good} | {passed} | {shares} |")
    wrong = ", ".join(f"{label} {count}" for label, count in found["gate"]["all rows"]["passed_but"].items())
    lines += ["", f"Bad rows that pass, by label: {wrong or 'none'}.", ""]
    lines += ["| rule | bad rows rejected | good rows rejected | precision | recall | first to reject |"]
    lines += ["|---|---|---|---|---|---|"]
    bad = found["gate"]["all rows"]["rows"] - found["gate"]["all rows"]["good"]
    for name, counts in found["rules"].items():
        shares = f"{_share(counts['bad'], counts['bad'] + counts['good'])} | {_share(counts['bad'], bad)}"
        lines.append(f"| `{name}` | {counts['bad']} | {counts['good']} | {shares} | {counts['first']} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def with_tables(readme: str, found: dict[str, Any]) -> str:
    """The README with new tables between the markers."""
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{render(found)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
