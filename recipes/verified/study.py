"""Rows that code has checked, with a real model: in go seeds, out come runs, a check of their files, and tables.

    python recipes/verified/study.py run --output_dir outputs/verified_runs
    python recipes/verified/recheck.py outputs/verified_runs/stepwise
    python recipes/verified/train.py all --output_dir outputs/verified_runs
    python recipes/verified/study.py table outputs/verified_runs

The first command evolves the seeds by two methods with `--constraints rules`; each run is an ordinary folder of
`teamsrl evolve`. The last writes results.json beside the README, and the README's tables: the share of answers that
pass by kind, what the other script found in the files, what a reader found (labels.jsonl), and what training did.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from recipes.verified.recheck import recheck  # noqa: E402
from teamsrl_hf.cli import load_recipe  # noqa: E402
from teamsrl_hf.errors import UserError  # noqa: E402
from teamsrl_hf.evaluation.intervals import mean_interval, wilson_interval  # noqa: E402
from teamsrl_hf.evaluation.study import as_table, to_json, with_tables  # noqa: E402
from teamsrl_hf.public import public_name  # noqa: E402
from teamsrl_hf.runs import read_run  # noqa: E402
from teamsrl_hf.verifiers import KINDS, Verifier, passes  # noqa: E402
from teamsrl_hf.verifiers.kind import describe  # noqa: E402

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONFIG = HERE.parent / "quickstart" / "evolve_smollm2.yaml"
# What the quickstart's file said when the published runs were made; it has changed since.
SETTINGS = {"prompts": "small", "operations_per_episode": 2, "max_tokens": 256}
METHODS = ("stepwise", "plan_answer")
FALSE = "false accept"
ARMS = {"base": "none", "verified": "verified rows", "unverified": "unverified rows"}


# -- run


def run(args: argparse.Namespace) -> None:
    """Evolve the seeds by each method."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"model": public_name(args.model), "seeds": args.max_seeds, "date": date.today().isoformat()}
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    for method in args.methods:
        evolve([*evolving(args.model, args.max_seeds), "--method", method, "--output_dir", str(folder / method)])


def evolving(model: str, max_seeds: int, **changed: Any) -> list[str]:
    """The options of `teamsrl evolve` that all runs share."""
    expert = model if model == "rulebook" else json.dumps({"transformers": model, "batch_size": 32})
    options = {"config": CONFIG, "expert": expert, "instructor": "rulebook", "constraints": "rules"}
    options |= {"concurrency": 64, "max_seeds": max_seeds, **SETTINGS, **changed}
    return [word for name, value in options.items() for word in (f"--{name}", *_words(value))]


def evolve(options: Sequence[str]) -> None:
    """`teamsrl evolve`."""
    load_recipe("evolve_dataset").main(list(options))


def _words(value: Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


# -- table


def table(args: argparse.Namespace) -> None:
    """Write results.json and the README's tables."""
    folder, readme = Path(args.folder), Path(args.readme)
    facts = folder / "facts.json"
    results = {
        "facts": json.loads(facts.read_text(encoding="utf-8")) if facts.exists() else {},
        "runs": [run_record(folder, method) for method in METHODS if (folder / method / "data").exists()],
        "reading": reading(Path(args.labels)),
        "training": [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("sft-*.json"))],
        "grpo": [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("grpo-*.json"))],
    }
    (readme.parent / "results.json").write_text(to_json(results), encoding="utf-8")
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), render(results)), encoding="utf-8")


def run_record(folder: Path, method: str) -> dict[str, Any]:
    """The counts of a run, and what a second check of its file finds."""
    state = read_run(folder / method)
    if state is None or state["summary"] is None:
        raise UserError(f"{folder / method} holds no finished run; run the study first.")
    summary, again = state["summary"], recheck(folder / method)
    return {
        "method": method,
        "rows": summary["rows"],
        "rows_with_verifiers": again["rows_with_verifiers"],
        "rechecked": again["verifiers"],
        "failed_again": len(again["failed"]),
        "calls": sum(summary["calls"].values()),
        "kinds": summary["verifiers"],
    }


def reading(labels: Path) -> list[dict[str, Any]]:
    """What a reader found in each round: by the verifiers of that time, and by those of today."""
    lines = labels.read_text(encoding="utf-8").splitlines() if labels.exists() else []
    rows = [json.loads(line) for line in lines]
    return [counts_of(number, [row for row in rows if row["round"] == number]) for number in rounds_of(rows)]


def rounds_of(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The rounds of reading; the verifiers were mended after each."""
    return sorted({row["round"] for row in rows})


def counts_of(number: int, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A round's answers and false accepts."""
    kept = [row for row in rows if passes_today(row)]
    wrong = [Counter(row["kind"] for row in some if row["label"] == FALSE) for some in (rows, kept)]
    return {
        "round": number,
        "kinds": len({row["kind"] for row in rows}),
        "models": dict(sorted(Counter(row["model"] for row in rows).items())),
        "asked": sum(row["asked"] for row in rows),
        "asked_false": sum(row["asked"] and row["label"] == FALSE for row in rows),
        "read": len(rows),
        "read_today": len(kept),
        "false": dict(sorted(wrong[0].items())),
        "false_today": dict(sorted(wrong[1].items())),
    }


def passes_today(row: dict[str, Any]) -> bool:
    """Whether today's verifier passes an answer that was read, and its constraint may still be worded so."""
    kind, arguments = KINDS[row["kind"]], json.loads(row["arguments"])
    said = [describe(kind, arguments, number) for number in range(len(kind.sentences))]
    return row["constraint"] in said and passes(row["answer"], Verifier(row["kind"], row["arguments"]))


def render(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [_runs(results), _kinds(results["runs"])] if results["runs"] else []
    parts += [_reading(results["reading"])] if results["reading"] else []
    parts += [_training(results["training"])] if results["training"] else []
    parts += [_grpo(results["grpo"])] if results["grpo"] else []
    return "\n".join(parts)


def _runs(results: dict[str, Any]) -> str:
    headings = [
        "method",
        "rows",
        "of these with verifiers",
        "verifiers checked again",
        "rows that fail again",
        "calls",
    ]
    names = ("method", "rows", "rows_with_verifiers", "rechecked", "failed_again", "calls")
    rows = [[str(record[name]) for name in names] for record in results["runs"]]
    return f"### Runs of {results['facts']['seeds']} seeds\n\n" + as_table(headings, rows)


def _kinds(runs: Sequence[dict[str, Any]]) -> str:
    """Of each kind the answers that pass at first and in the end, by method."""
    seen = [id for id in KINDS if any(id in record["kinds"] for record in runs)]
    counts = [record["kinds"] for record in runs]
    rows = [[f"`{id}`", *(_cell(found.get(id)) for found in counts)] for id in seen]
    totals = [Counter() for _ in counts]
    for total, found in zip(totals, counts):
        for one in found.values():
            total.update(one)
    rows.append(["all", *map(_cell, totals)])
    title = "### Answers that pass: at first, and after another try, of those checked\n\n"
    return title + as_table(["kind", *(record["method"] for record in runs)], rows)


def _cell(found: dict[str, int] | None) -> str:
    return f"{found['passed_at_first']}, {found['passed']} of {found['answers']}" if found else "–"


def _reading(rounds: Sequence[dict[str, Any]]) -> str:
    rows = []
    for found in rounds:
        then = _rate(sum(found["false"].values()), found["read"])
        now = _rate(sum(found["false_today"].values()), found["read_today"])
        asked = _rate(found["asked_false"], found["asked"]) if found["asked"] else "–"
        kinds = ", ".join(f"`{id}` {number}" for id, number in found["false"].items())
        rows.append([str(found["round"]), str(found["kinds"]), then, asked, now, kinds])
    headings = ["round", "kinds", "false accepts, verifiers as they were", "of these in answers to the constraint"]
    headings += ["verifiers as they are now, same answers", "where"]
    return "### Answers that pass, read by hand\n\n" + as_table(headings, rows)


def _rate(wrong: int, read: int) -> str:
    low, high = wilson_interval(wrong, read)
    return f"{wrong}/{read} = {wrong / read:.1%} ({low:.1%}–{high:.1%})"


def _training(records: Sequence[dict[str, Any]]) -> str:
    measures = {"strict_by_prompt": "strict, by prompt", "strict_by_constraint": "strict, by constraint"}
    measures |= {"loose_by_constraint": "loose, by constraint", "words": "words per answer"}
    rows = []
    for arm, label in ARMS.items():
        found = [record for record in records if record["arm"] == arm]
        if found:
            told = [_told([one[name] for one in found], 0 if name == "words" else 3) for name in measures]
            passing = _told([one["passed_in_training"] for one in found], 2) if found[0]["rows"] else "–"
            rows.append([label, str(found[0]["rows"]), passing, str(len(found)), *told])
    headings = ["trained on", "rows", "share that passes", "seeds", *measures.values()]
    shown = records[0]
    title = f"### Held-out kinds after SFT: {shown['prompts']} prompts with {shown['constraints']} constraints\n\n"
    return title + as_table(headings, rows) + _paired(records, ("strict_by_prompt", "strict_by_constraint"))


def _paired(records: Sequence[dict[str, Any]], measures: Sequence[str]) -> str:
    """The arms' difference for each seed, as a mean."""
    by_arm = {arm: {one["seed"]: one for one in records if one["arm"] == arm} for arm in ARMS}
    seeds = sorted(by_arm["verified"].keys() & by_arm["unverified"].keys())
    if len(seeds) < 2:
        return ""
    gains = {
        name: [by_arm["verified"][seed][name] - by_arm["unverified"][seed][name] for seed in seeds]
        for name in measures
    }
    told = "; ".join(f"{name.replace('_', ' ')} {_told(values, 3, '+')}" for name, values in gains.items())
    return f"\nVerified less unverified rows, paired by seed: {told}.\n"


def _grpo(records: Sequence[dict[str, Any]]) -> str:
    names = {"reward_first": "reward, first quarter of steps", "reward_last": "reward, last quarter"}
    names |= {"before": "held-out answers that pass, before", "after": "after"}
    rows = [[str(r["seed"]), str(r["steps"]), *(f"{r[name]:.3f}" for name in names)] for r in records]
    told = []
    for what, (first, last) in {"reward": ("reward_first", "reward_last"), "held-out": ("before", "after")}.items():
        if len(records) > 1:
            told.append(f"{what} {_told([r[last] - r[first] for r in records], 3, '+')}")
    note = f"\nRise, mean over seeds: {'; '.join(told)}.\n" if told else ""
    return f"### {records[0]['steps']} steps of GRPO\n\n" + as_table(["seed", "steps", *names.values()], rows) + note


def _told(values: Sequence[float], digits: int, sign: str = "") -> str:
    if len(values) == 1:
        return f"{values[0]:{sign}.{digits}f}"
    mean, half = mean_interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="evolve the seeds by each method")
    running.add_argument("--output_dir", required=True)
    running.add_argument("--model", default=MODEL, help="folder or Hub id, or rulebook")
    running.add_argument("--max_seeds", type=int, default=120)
    running.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    writing = commands.add_parser("table", help="write results.json and the README's tables")
    writing.add_argument("folder")
    writing.add_argument("--labels", default=str(HERE / "labels.jsonl"))
    writing.add_argument("--readme", default=str(HERE / "README.md"))
    args = parser.parse_args(argv)
    {"run": run, "table": table}[args.command](args)


if __name__ == "__main__":
    main()
