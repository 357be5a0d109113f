"""Pictures for cards: counts and curves of a run go in, small PNG files come out, or none without matplotlib."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


def plot_dataset(summary: Mapping[str, Any], folder: str | Path) -> dict[str, str] | None:
    """Draw operation mix, lengths and novelty into `folder/plots`; returns title -> path within the folder.

    Args:
        summary: As `DatasetStatistics.summary` gives it.

    Returns:
        None without matplotlib (the extra `plots`); empty when there are no rows.
    """
    drawn: dict[str, tuple[str, Callable]] = {}
    if not summary["rows"]:
        return {}
    steps = sorted({step for counts in summary["operations_by_step"].values() for step in counts}, key=int)
    mix = {name: [counts.get(step, 0) for step in steps] for name, counts in summary["operations_by_step"].items()}
    drawn["Rows by step and operation"] = _bars("operations", mix, steps, "step", "rows")
    spans = list(dict.fromkeys(span for counts in summary["words"].values() for span in counts))
    spans.sort(key=lambda span: int(span.split("-")[0]))
    words = {f"{name}s": [counts.get(span, 0) for span in spans] for name, counts in summary["words"].items()}
    drawn["Rows by length"] = _bars("lengths", words, spans, "words", "rows", stacked=False)
    curve = {"": [(int(step), share) for step, share in summary["novelty_by_step"].items()]}
    drawn["Share of words that the text before did not have"] = _lines("novelty", curve, "step", "new words")
    return _save(drawn, Path(folder))


def plot_policy(history: Sequence[Mapping[str, float]], folder: str | Path) -> dict[str, str] | None:
    """Draw the reward's curve into `folder/plots`, from a trainer's `log_history`; returns as `plot_dataset` does."""
    curves = {
        "training": [(entry["step"], entry["reward"]) for entry in history if "reward" in entry],
        "held-out seeds": [(entry["step"], entry["eval_reward"]) for entry in history if "eval_reward" in entry],
    }
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    drawn = {"Reward by training step": _lines("reward", curves, "training step", "reward")} if curves else {}
    return _save(drawn, Path(folder))


def _bars(name: str, series: Mapping[str, Sequence[int]], ticks: Sequence, x: str, y: str, stacked: bool = True):
    def draw(axes) -> None:
        floor, width = [0] * len(ticks), 0.8 if stacked else 0.8 / len(series)
        for number, (label, values) in enumerate(series.items()):
            at = [i if stacked else i + (number - (len(series) - 1) / 2) * width for i in range(len(ticks))]
            axes.bar(at, values, width, bottom=floor if stacked else 0, label=label, color=COLOURS[number % 8])
            floor = [low + value for low, value in zip(floor, values)]
        axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
        _label(axes, x, y, len(series))

    return name, draw


def _lines(name: str, series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str):
    def draw(axes) -> None:
        for number, (label, points) in enumerate(series.items()):
            axes.plot(*zip(*points), marker="o", markersize=3, label=label, color=COLOURS[number % 8])
        axes.set_ylim(bottom=min(0, *(value for points in series.values() for _, value in points)))
        _label(axes, x, y, len(series))

    return name, draw


def _label(axes, x: str, y: str, series: int) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    if series > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def draw_curves(series: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, x: str, y: str) -> bool:
    """Draw named curves as a PNG at `path`; False, and nothing drawn, without matplotlib or points."""
    return bool(series) and _draw(_lines("", series, x, y)[1], Path(path))


def _save(drawn: Mapping[str, tuple], folder: Path) -> dict[str, str] | None:
    paths = {title: f"plots/{name}.png" for title, (name, _) in drawn.items()}
    if not all(_draw(draw, folder / paths[title]) for title, (_, draw) in drawn.items()):
        return None
    return paths


def _draw(draw: Callable, path: Path) -> bool:
    try:
        # Not pyplot, which looks for a screen and keeps figures alive.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 3), layout="constrained")
    draw(figure.subplots())
    path.parent.mkdir(exist_ok=True)
    # Without the version of matplotlib in it, the same numbers make the same file.
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
    return True
