"""How often forecasts from a pilot hold, and how wide they are: in go seeds and models, out comes a line a method.

    python tests/benchmarks/bench_forecast.py
    python tests/benchmarks/bench_forecast.py --expert transformers:FOLDER --max_seeds 60 --methods stepwise

All seeds are evolved once. Then pilots are drawn from them at random, many times, and each forecast is compared with
what all seeds took and gave. "all" is the share of forecasts in which every interval held; "rows", "calls" and
"tokens" (of answers) are the shares of single ones, over all roles; "width" is half of an interval, relative to the
number, on average.

Measured, 317 built-in seeds, rules in every role, four operations a chain, 300 pilots each:

method         pilot    all    rows  width   calls  width  tokens  width
stepwise          10  0.960   0.990   0.83   0.983   0.41   0.980   0.61
stepwise          20  0.977   0.983   0.52   0.983   0.26   0.993   0.38
stepwise          40  0.983   0.990   0.33   0.997   0.17   1.000   0.24
plan              10  0.913   1.000   0.78   0.990   0.42   0.983   0.63
plan              20  0.940   1.000   0.43   0.990   0.26   0.997   0.39
plan              40  0.973   0.997   0.27   0.997   0.16   1.000   0.25
plan_answer       10  0.940   1.000   0.78   0.987   0.41   0.983   0.63
plan_answer       20  0.940   1.000   0.43   0.990   0.25   0.997   0.39
plan_answer       40  0.973   0.997   0.27   0.997   0.16   1.000   0.25
packed            10  1.000   1.000   1.64   1.000   0.99   1.000   1.25
packed            20  0.963   1.000   0.70   0.993   0.39   0.997   0.57
packed            40  0.970   0.997   0.32   0.997   0.19   1.000   0.30
evol_instruct     10  0.980   1.000   0.80   0.997   0.25   0.990   0.59
evol_instruct     20  0.963   0.997   0.50   0.997   0.16   0.983   0.38
evol_instruct     40  0.967   0.993   0.31   0.990   0.10   0.980   0.24

SmolLM2-135M-Instruct as expert, 48 seeds, 18 rows, three operations, two a chain, max_tokens 96:

stepwise           8  0.953   0.983   1.67   0.997   0.28   0.983   0.49
stepwise          16  0.930   0.957   1.00   0.990   0.16   0.983   0.27
stepwise          24  0.940   0.967   0.71   0.993   0.11   0.997   0.18
"""

import argparse
import random
import tempfile
from pathlib import Path

from teamsrl_hf import OPERATIONS, DatasetEvolver, EvolverConfig, Ledger, load_seeds, make_generator, uniform_chooser
from teamsrl_hf.evolve.config import METHODS
from teamsrl_hf.evolve.forecast.intervals import ALL, AMOUNTS, Forecast, Outcome, forecast
from teamsrl_hf.evolve.forecast.pilot import alike_seeds, run_pilot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--expert", default="rulebook")
    parser.add_argument("--reviewer", default="rulebook")
    parser.add_argument("--instructor", default="rulebook")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--operations", nargs="+")
    parser.add_argument("--max_seeds", type=int)
    parser.add_argument("--operations_per_episode", type=int, default=4)
    parser.add_argument("--max_tokens", type=int, default=2048)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--pilots", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    seeds = load_seeds()[: given.max_seeds]
    operations = [one for one in OPERATIONS if not given.operations or one.name in given.operations]
    models = {role: make_generator(getattr(given, role)) for role in ("expert", "reviewer", "instructor")}
    print(
        f"{'method':<14}{'pilot':>6}{'all':>7}" + "".join(f"{n:>8}{'width':>7}" for n in ("rows", "calls", "tokens"))
    )
    for method in given.methods:
        settings = {name: getattr(given, name) for name in ("operations_per_episode", "max_tokens", "concurrency")}
        args = EvolverConfig(method=method, **settings)
        evolver = DatasetEvolver(**models, chooser=uniform_chooser(operations), operations=operations, args=args)
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            units = run_pilot(evolver, seeds, len(seeds), ledger).outcomes
        true, alike = forecast(units, len(seeds)), alike_seeds(seeds, args.dedup_threshold)
        later = "" if args.answered_in_walk else "expert"
        for size in given.pilots:
            draws = random.Random(size)
            found = [
                forecast(drawn_units(units, size, draws), len(seeds), alike=alike, answered_later=later)
                for _ in range(given.draws)
            ]
            print(f"{method:<14}{size:>6}" + line(found, true), flush=True)


def drawn_units(units: list[Outcome], size: int, draws: random.Random) -> list[Outcome]:
    """Units with at least `size` seeds, and at least two of them."""
    order = draws.sample(units, len(units))
    count = next(n for n in range(2, len(units) + 1) if sum(unit.seeds for unit in order[:n]) >= size)
    return order[:count]


def line(found: list[Forecast], true: Forecast) -> str:
    every = sum(all(held(one, true)) for one in found) / len(found)
    cells = [f"{every:>7.3f}"]
    for pick in (lambda f: f.rows, lambda f: f.spent[ALL]["calls"], lambda f: f.spent[ALL]["answer tokens"]):
        number = pick(true).low
        holds = sum(pick(one).holds(number) for one in found) / len(found)
        width = sum(pick(one).high - pick(one).low for one in found) / 2 / len(found) / max(1, number)
        cells.append(f"{holds:>8.3f}{width:>7.2f}")
    return "".join(cells)


def held(found: Forecast, true: Forecast) -> list[bool]:
    """Whether each interval holds; a role that no seed of the pilot asked is missed if any other did."""
    amounts = [(role, name) for role in true.spent for name in AMOUNTS]
    missed = [
        role in found.spent and found.spent[role][name].holds(true.spent[role][name].low) for role, name in amounts
    ]
    return [found.rows.holds(true.rows.low), *missed]


if __name__ == "__main__":
    main()
