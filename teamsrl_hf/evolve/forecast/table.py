"""A forecast as text: in go a forecast and its pilot, out come lines for a terminal, each number with its unit."""

from collections.abc import Callable, Iterator

from .intervals import ALL, AMOUNTS, Forecast, Range
from .pilot import Pilot

_UNITS = {"cost": "cost, in the currency of the prices"}
_BOUNDS = """\
These are bounds that follow from the method. Rows and calls, but for those that a server makes necessary twice, \
lie between them.
Tokens and cost are estimates: four bytes a token, and for each answer one token to the most that it may have.
`--pilot 20` evolves 20 seeds and gives an interval."""


def forecast_table(found: Forecast, method: str, priced: bool, counted: str = "rows") -> str:
    """What is `counted`, and calls, tokens and cost by role: the likeliest number and the interval."""
    head = f"Forecast for {found.seeds:,} seeds by the method {method}"
    how = f"In {found.level:.0%} of such forecasts, all of these intervals hold."
    evolved = f"{found.pilot:,} of which were evolved" if found.pilot else "none of which was evolved"
    lines = [f"{head}, {evolved}.", how if found.pilot else _BOUNDS, ""]
    lines.append(f"{'':<12}{'':<38}{'likely':>14}{'least':>14}{'most':>14}")
    lines.append(_line("dataset", counted, found.rows, _count))
    for role, name in _shown(found, priced):
        show = _money if name == "cost" else _count
        lines.append(_line(role, _UNITS.get(name, name), found.spent[role][name], show))
    if not priced:
        lines.append("No prices are given, so nothing is said of cost; `prices` in YAML gives them.")
    return "\n".join(lines)


def pilot_lines(pilot: Pilot, found: Forecast) -> str:
    """What became of the seeds of the pilot."""
    counts = pilot.statistics
    rejections = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.rejections.items()))
    return f"Pilot: {counts.rows:,} rows from {found.pilot:,} seeds; rejected: {rejections or 'none'}."


def _shown(found: Forecast, priced: bool) -> Iterator[tuple[str, str]]:
    roles = [role for role in found.spent if role != ALL]
    for role in (*roles, *([ALL] if len(roles) > 1 else [])):
        for name in AMOUNTS:
            if priced or name != "cost":
                yield role, name


def _line(role: str, name: str, found: Range, show: Callable[[float], str]) -> str:
    middle = "" if found.estimate is None else show(found.estimate)
    return f"{role:<12}{name:<38}{middle:>14}{show(found.low):>14}{show(found.high):>14}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _money(value: float) -> str:
    return f"{value:,.4f}"
