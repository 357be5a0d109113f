"""Cost report of a run: in goes its folder, out come totals by role, requests per accepted row and their share of
Evol-Instruct's. Also the summary that a run prints at its end.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..redaction import shown
from ..runs import read_run
from .ledger import Ledger, Totals
from .ledger_file import writable
from .parts import part_paths

# WizardLM (arXiv 2304.12244): 52,000 seeds x 4 rounds x 3 calls (rewrite, equality judge, response) gave 250,000 rows.
EVOL_INSTRUCT_CALLS, EVOL_INSTRUCT_ROWS = 624_000, 250_000
FORMULA = (
    "share = requests / (rows x 624,000 / 250,000): Evol-Instruct asked 624,000 times (rewrite, judge, response) for "
    "250,000 rows; requests include retries, failures and what was spent on rejected rows"
)


def report(folder: str | Path) -> dict[str, Any]:
    """Totals of the ledgers in a folder (or of one file), as plain values for JSON.

    Returns:
        roles: The fields of `Totals` by role, and their sums under "all".
        rows: Accepted rows; None if there is no finished dataset beside the ledger.
        requests_per_row, share_of_evol_instruct: By role and over all, retries included; empty without rows.
        verifiers: For each kind of verifier, the answers checked and those that passed at first and in the end.
        with_training: Whether the totals include calls of policy training.

    Raises:
        UserError: There is no ledger, or another process holds it.
    """
    folder = Path(folder)
    totals = _totals(_ledgers(folder))
    totals["all"] = add_up(list(totals.values()))
    run = read_run(folder if folder.is_dir() else folder.parent) or {}
    rows = _in_summary(run.get("summary"), "rows")
    per_row = {role: total.attempts / rows for role, total in totals.items()} if rows else {}
    return {
        "roles": {role: asdict(total) for role, total in totals.items()},
        "rows": rows,
        "requests_per_row": per_row,
        "share_of_evol_instruct": {
            role: requests * EVOL_INSTRUCT_ROWS / EVOL_INSTRUCT_CALLS for role, requests in per_row.items()
        },
        "verifiers": _in_summary(run.get("summary"), "verifiers") or {},
        "with_training": run.get("arguments", {}).get("command") == "quickstart",
    }


def table(report: Mapping[str, Any]) -> str:
    """A report as text for a terminal."""
    names = ("calls", "retries", "errors", "prompt tokens", "answer tokens", "cost", "s per call")
    lines = [f"{'role':<12}" + "".join(f"{name:>15}" for name in names)]
    for role, t in report["roles"].items():
        retries, latency = t["attempts"] - t["calls"], t["seconds"] / t["calls"] if t["calls"] else 0.0
        counts = (t["calls"], retries, t["errors"], t["prompt_tokens"], t["completion_tokens"])
        lines.append(
            f"{shown(role):<12}" + "".join(f"{n:>15,}" for n in counts) + f"{t['cost']:>15,.4f}{latency:>15.3f}"
        )
    lines += _estimates(report["roles"]["all"])
    if not report["rows"]:
        reason = "the run accepted none" if report["rows"] == 0 else "no finished dataset stands beside this ledger"
        return "\n".join([*lines, f"requests per accepted row: not known, {reason}"])
    lines.append(f"accepted rows              {report['rows']:,}")
    for name, key in (("requests per accepted row", "requests_per_row"), ("share of Evol-Instruct", None)):
        values = report[key or "share_of_evol_instruct"]
        lines.append(f"{name:<27}" + ", ".join(f"{role} {value:.3f}" for role, value in values.items()))
    for id, counts in report["verifiers"].items():
        answers, first, passed = (counts[name] for name in ("answers", "passed_at_first", "passed"))
        lines.append(f"verified {shown(id):<50}{passed:>8,} of {answers:,} answers, {first:,} at first")
    if report["with_training"]:
        lines.append("calls of policy training (instructor, reviewer) are among them")
    return "\n".join([*lines, FORMULA])


def _estimates(t: Mapping[str, Any]) -> list[str]:
    """What of the totals `t` was read from a cache, and what is estimated and would be missing without estimates."""
    cached = [f"prompt tokens from the server's cache: {t['cached_tokens']:,}"] if t["cached_tokens"] else []
    if not t["estimated"]:
        return cached
    tokens, cost = t["prompt_tokens"] + t["completion_tokens"], max(0.0, t["cost"] - t["estimated_cost"])
    return [
        *cached,
        f"tokens of {t['estimated']:,} calls are estimated, since the server reported too few: one for four bytes, "
        "and for a failed attempt the most that it may charge",
        f"with these estimates: {tokens:,} tokens, cost {t['cost']:,.4f}; "
        f"without: {tokens - t['estimated_tokens']:,} tokens, cost {cost:,.4f}",
    ]


def money(cost: float, estimated: float) -> str:
    """An amount in words, with the part of it that is estimated.

    >>> money(0.5, 0.0), money(0.5, 0.125)
    ('0.5', '0.5, of it 0.125 estimated')
    """
    return f"{cost:.6g}, of it {estimated:.6g} estimated" if estimated else f"{cost:.6g}"


def spent(ledger: Ledger) -> dict[str, Any]:
    """Summary of a ledger, as plain values for run.json.

    Returns:
        calls, failed_calls: Numbers by role, earlier runs included.
        cost: Money, 0 where no prices are known.
        estimated_cost: The part of it that is estimated, for what servers may charge without having said so.
        errors: The three most common errors of this run's calls, in the server's own words, with their counts.
        to_ask_again: Number of failed calls that the next run repeats.
    """
    totals, failures = ledger.totals(), ledger.failures()
    return {
        "calls": {role: total.calls for role, total in totals.items()},
        "failed_calls": {role: total.errors for role, total in totals.items() if total.errors},
        "cost": sum(total.cost for total in totals.values()),
        "estimated_cost": sum(total.estimated_cost for total in totals.values()),
        "errors": commonest(Counter(error for error, _ in failures)),
        "to_ask_again": sum(not final for _, final in failures),
    }


def commonest(errors: Mapping[str, int], most: int = 3) -> dict[str, int]:
    """The most common errors and their counts. Errors that differ only by a number, such as a request id, are one.

    >>> commonest({"HTTP 500: id 81f0 after 3 attempts": 2, "HTTP 500: id 92aa": 1, "no answer within 9 s": 4})
    {'no answer within 9 s': 4, 'HTTP 500: id 81f0': 3}
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for error, count in errors.items():
        plain = re.sub(r"( \(for [\d.]+ s\))?( after \d+ attempts)?$", "", shown(error)[:200])
        kind = re.sub(r"(?<!HTTP )\b[\w-]*\d[\w-]*", "#", plain)
        counts[first.setdefault(kind, plain)] += count
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:most])


def outcome(spent: Mapping[str, Any], results: Mapping[str, Any] | None = None, operations: Sequence[str] = ()) -> str:
    """Summary of an evolution, as text for a terminal.

    Args:
        spent: The result of the function `spent`.
        results: Rows, seeds, rejections and rows by operation; None if the evolution was stopped.
        operations: Names of the operations in use.
    """
    lines = []
    if results is not None:
        rejections = ", ".join(f"{reason} {count:,}" for reason, count in results["rejections"].items())
        lines += [
            f"rows      {results['rows']:,} from {results['seeds']:,} seeds",
            f"rejected  {rejections or 'none'}",
        ]
        without = [name for name in operations if name not in results["operations"]]
        lines += [f"no row    by {', '.join(without)}"] if without else []
    failed = {role: f" ({count:,} failed)" for role, count in spent["failed_calls"].items()}
    calls = ", ".join(f"{role} {count:,}{failed.get(role, '')}" for role, count in spent["calls"].items())
    lines += [f"calls     {calls or 'none'}"]
    lines += [f"cost      {money(spent['cost'], spent.get('estimated_cost', 0.0))}"] if spent["cost"] else []
    lines += [f"error     {count:,} times: {error}" for error, count in spent["errors"].items()]
    if again := spent["to_ask_again"]:
        lines += [f"{again:,} failed calls are asked again when the same command is run again"]
    return "\n".join(lines)


def add_up(totals: Sequence[Totals]) -> Totals:
    """The sums, field by field.

    >>> sums = add_up([Totals(1, 0, 10, 5, 0.5, attempts=1), Totals(2, 1, 20, 5, 0.5, attempts=4)])
    >>> sums.calls, sums.prompt_tokens, sums.seconds, sums.attempts
    (3, 30, 1.0, 5)
    """
    return Totals(*map(sum, zip(*(asdict(total).values() for total in totals)))) if totals else Totals(0, 0, 0, 0, 0.0)


def _ledgers(folder: Path) -> list[Path]:
    ledger = folder / "ledger.sqlite" if folder.is_dir() else folder
    if not ledger.is_file():
        raise UserError(f"There is no ledger at {folder}; give the output folder of a run, or the ledger itself.")
    return [ledger, *part_paths(ledger)]


def _totals(paths: Sequence[Path]) -> dict[str, Totals]:
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "all.sqlite"
        (Path(folder) / "copies").mkdir()
        paths = [writable(path, Path(folder) / "copies") for path in paths]
        with Ledger(paths[0] if len(paths) == 1 else own) as ledger:
            ledger.merge(paths)
            return ledger.totals()


def _in_summary(summary: Any, name: str) -> Any:
    """What the summary of an evolution, or of a quickstart that holds one, says; None without one."""
    if not isinstance(summary, dict):
        return None
    return summary[name] if name in summary else _in_summary(summary.get("dataset"), name)
