"""The report of a comparison of methods: in go facts, records and curves, out come a table, a plot and a page.

`results` has the keys of results.json: `facts` (settings), `records` (one for each method and repetition) and `curves`
(points at equal shares of the budget).
"""

import base64
import html
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .intervals import mean_interval

_CHOOSERS = {
    "policy": ("learned policy", " (PPO)"),
    "linucb": ("bandit", " (LinUCB)"),
    "uniform": ("uniform", ""),
    "paper": ("paper's schedule", ""),
}
_PLANNED = {
    "plan": "one call per plan",
    "plan_answer": "one call per row",
    "packed": "several rows per call",
}
# Every chooser with every method; "uniform" alone is stepwise. Evol-Instruct draws its operations itself.
LABELS = {
    **{chooser: name + kind for chooser, (name, kind) in _CHOOSERS.items()},
    "evol_instruct": "Evol-Instruct",
    **{f"{one}_{way}": f"{_CHOOSERS[one][0]}, {told}" for way, told in _PLANNED.items() for one in _CHOOSERS},
}
METHODS = tuple(LABELS)
COLUMNS = {
    "paid": ("paid calls", 0),
    "rows": ("rows", 0),
    "expert_calls_per_row": ("paid calls per row", 2),
    "calls_per_row": ("all calls per row", 2),
    "vendi_equal": ("Vendi, equal rows", 1),
    "vendi": ("Vendi, equal calls", 1),
    "novelty": ("novelty to seeds", 3),
    "words": ("words", 1),
    "grade": ("reading grade", 1),
}
BEGIN, END = "<!-- table: written by recipes/compare.py -->", "<!-- end of table -->"


def parts_of(method: str) -> tuple[str, str]:
    """The chooser of one of METHODS, and its way of evolving.

    >>> parts_of("policy_plan_answer"), parts_of("uniform"), parts_of("evol_instruct")
    (('policy', 'plan_answer'), ('uniform', 'stepwise'), ('uniform', 'evol_instruct'))
    """
    if method == "evol_instruct":
        return "uniform", method
    chooser, _, way = method.partition("_")
    return chooser, way or "stepwise"


def write_comparison(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, README.md, report.html and, if matplotlib is installed, comparison.png."""
    (folder / "results.json").write_text(to_json(results), encoding="utf-8")
    picture = plot(results, folder / "comparison.png")
    text = f"# Head-to-head\n\n{caption(results)}\n\n{table(results)}\n"
    image = "\n![rows, diversity and reading grade against paid calls](comparison.png)\n" if picture else ""
    (folder / "README.md").write_text(text + image, encoding="utf-8")
    (folder / "report.html").write_text(page(results, picture), encoding="utf-8")
    print(table(results))


def to_json(results: Mapping[str, Any]) -> str:
    """JSON with one record per line."""
    lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, results[name])) + "\n]" for name in ("records", "curves")]
    return "{\n" + ",\n".join([f'"facts": {json.dumps(results["facts"], indent=1)}', *lists]) + "\n}\n"


def caption(results: Mapping[str, Any]) -> str:
    """What the table shows and how it was measured, in a paragraph."""
    facts = results["facts"]
    return (
        f"{facts['budget']} paid calls of `{facts['expert']}` for each method on the same {facts['seeds']} seeds "
        f"(digest of all seeds: `{facts['seeds_digest']}`). "
        f"Mean ± half the 95 % interval (Student's t) over {facts['repetitions']} repetitions, each with its own "
        f"training, order and random numbers. Learned choosers trained on {facts['train_seeds']} other seeds with "
        f"{facts['training_operations']:,} free operations. Paid calls are those of the expert, Evol-Instruct's own "
        "verdicts included; *all calls* adds those of the free reviewer and instructor. The first Vendi score is of "
        f"{facts['equal_rows']} rows of each method, "
        f"the second of all its rows; embedding: {facts['embedding']}. A method with fewer paid calls ran out of "
        "seeds."
    )


def table(results: Mapping[str, Any]) -> str:
    """The comparison as Markdown between two marks, methods in the given order."""
    lines = [
        "| method | " + " | ".join(name for name, _ in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for method in results["facts"]["methods"]:
        cells = [_cell(values_of(results, method, column), digits) for column, (_, digits) in COLUMNS.items()]
        lines.append(f"| {LABELS[method]} | " + " | ".join(cells) + " |")
    return "\n".join([BEGIN, *lines, END])


def values_of(results: Mapping[str, Any], method: str, column: str) -> list[float]:
    """A column of a method's repetitions, without those that made no row if it is about rows."""
    found = (record[column] for record in results["records"] if record["method"] == method)
    return [value for value in found if value is not None]


def _cell(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "–"
    mean, half = mean_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def plot(results: Mapping[str, Any], path: Path) -> Path | None:
    """Rows, diversity and grade against paid calls, mean and range over repetitions; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: pip install 'teamsrl-hf[evaluation]'", file=sys.stderr)
        return None
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = {"rows": "accepted rows", "vendi": "Vendi score of all rows", "grade": "reading grade of rows"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items()):
        for method in results["facts"]["methods"]:
            points: dict[int, list[float]] = {}
            for point in results["curves"]:
                if point["method"] == method:
                    points.setdefault(point["calls"], []).append(point[name])
            calls = sorted(points)
            means = [statistics.mean(points[c]) for c in calls]
            axes.plot(calls, means, marker=".", label=LABELS[method])
            axes.fill_between(calls, [min(points[c]) for c in calls], [max(points[c]) for c in calls], alpha=0.15)
        axes.set(xlabel="paid calls", title=title)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return path


def page(results: Mapping[str, Any], picture: Path | None) -> str:
    """The report as one self-contained HTML page."""
    rows = [line.strip("| ").split("|") for line in table(results).splitlines()[1:-1]]
    cells = [
        "<tr>" + "".join(f"<{tag}>{html.escape(cell.strip())}</{tag}>" for cell in row) + "</tr>"
        for tag, row in [("th", rows[0]), *(("td", row) for row in rows[2:])]
    ]
    image = ""
    if picture:
        content = base64.b64encode(picture.read_bytes()).decode()
        image = (
            f'<p><img alt="rows, diversity and grade against paid calls" src="data:image/png;base64,{content}"></p>'
        )
    style = "body{font:16px sans-serif;max-width:75em;margin:2em auto}td,th{padding:.3em .6em;text-align:left}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Head-to-head</title><style>{style}</style>'
        f"<h1>Head-to-head</h1><p>{html.escape(caption(results))}</p><table>{''.join(cells)}</table>{image}</html>\n"
    )
