"""Forecasts: intervals worked by hand, bounds that no run leaves, and how often pilots foretell what runs then do."""

import itertools

import pytest
from asked import changed, rewrite_of
from endpoint_server import EndpointServer, rulebook_answer

from teamsrl_hf import (
    OPERATIONS,
    DatasetEvolver,
    EvolverConfig,
    Example,
    Ledger,
    Rulebook,
    ScriptedGenerator,
    Seed,
    load_seeds,
    make_generator,
    uniform_chooser,
)
from teamsrl_hf.errors import UserError
from teamsrl_hf.evolve.config import METHODS
from teamsrl_hf.evolve.forecast.bounds import bounds
from teamsrl_hf.evolve.forecast.intervals import ALL, AMOUNTS, Outcome, Range, forecast, total
from teamsrl_hf.evolve.forecast.pilot import alike_seeds, drawn, forecast_from, run_pilot
from teamsrl_hf.models.budget import Price
from teamsrl_hf.text.operations import with_prompts

RULES = Rulebook()
WHOLE = with_prompts("large")  # A served rulebook writes whole rewrites.


def evolver(method="stepwise", expert=RULES, reviewer=RULES, instructor=RULES, **args):
    args = EvolverConfig(method=method, **{"operations_per_episode": 3, **args})
    return DatasetEvolver(expert, reviewer, uniform_chooser(OPERATIONS), OPERATIONS, args, instructor=instructor)


def unit(rows=1, near_duplicates=0, calls=2.0, seeds=1):
    return Outcome(seeds, rows, near_duplicates, {"expert": (calls, 10 * calls, 20 * calls, 0.5 * calls)})


# -- intervals


def test_the_interval_of_a_sum_is_students_with_the_spread_of_the_sum_and_of_the_mean():
    # Rate 2; squares 1 + 0 + 1, and 1 for one more unit that differs by 1; variance 3 / 2, times 3 (1 + 3 / 3) = 9.
    found = total([1, 2, 3], [1, 1, 1], left=3, step=1.0, level=0.5)
    assert found.estimate == 12
    assert (found.low, found.high) == pytest.approx((12 - 3 * 0.8165, 12 + 3 * 0.8165), abs=1e-3)  # t(2) at .75


def test_what_the_pilot_took_is_certain_and_no_further_seed_takes_less_than_nothing():
    assert total([1, 2, 3], [1, 1, 1], left=3, step=1.0, level=0.999).low == 6
    assert total([1, 2, 3], [1, 1, 1], left=0, step=1.0, level=0.999) == Range(6, 6, 6)


def test_units_of_several_seeds_are_compared_by_what_a_seed_takes():
    found = total([4, 2], [4, 2], left=6, step=0.0, level=0.9)
    assert found == Range(12, 12, 12)


def test_equal_seeds_do_not_make_a_forecast_certain():
    found = forecast([unit()] * 10, 100)
    calls = found.spent["expert"]["calls"]
    assert calls.estimate == 200
    assert calls.low < 180 < 220 < calls.high
    assert found.spent["expert"]["answer tokens"].estimate == 4000
    assert found.spent["expert"]["cost"].estimate == pytest.approx(100)
    assert found.rows.low < 80


def test_a_larger_pilot_and_a_lower_level_give_a_narrower_interval():
    some = [unit(calls=calls) for calls in (1.0, 2.0, 4.0, 2.0)]
    few, many, low = forecast(some, 100), forecast(some * 5, 100), forecast(some, 100, level=0.5)

    def width(found):
        return found.spent["expert"]["calls"].high - found.spent["expert"]["calls"].low

    assert width(many) < 0.5 * width(few)
    assert width(low) < 0.7 * width(few)


def test_a_role_that_few_seeds_ask_is_forecast_from_all_of_them():
    outcomes = [unit(), Outcome(1, 1, 0, {"expert": (2.0, 20.0, 40.0, 1.0), "reviewer": (1.0, 5.0, 1.0, 0.0)})]
    found = forecast(outcomes, 20)
    assert found.spent["reviewer"]["calls"].estimate == 10
    assert found.spent[ALL]["calls"].estimate == 50


def test_near_duplicates_grow_with_the_rows():
    # 2 near-duplicates of 20 candidates: q = 2 / 200; of 200 candidates ln(1 + 2) / q = 109.9 stay.
    found = forecast([unit()] * 18 + [unit(rows=0, near_duplicates=1)] * 2, 200)
    per_seed = 18 / 20
    assert found.rows.estimate == round(200 * per_seed * 0.5493 / 0.9116)
    assert found.rows.low < 0.5 * found.rows.estimate
    none = forecast([unit()] * 20, 200)
    assert (none.rows.estimate, none.rows.high) > (199, 199)


def test_answers_that_near_duplicates_spare_lower_the_fewest_calls_of_the_expert():
    outcomes = [unit()] * 18 + [unit(rows=0, near_duplicates=1)] * 2
    plain, later = forecast(outcomes, 200), forecast(outcomes, 200, answered_later="expert")
    assert later.spent["expert"]["calls"].low < plain.spent["expert"]["calls"].low
    assert later.spent["expert"]["calls"].high == plain.spent["expert"]["calls"].high


def test_seeds_that_are_alike_widen_the_forecast_of_rows():
    assert alike_seeds([Seed("a", "Name a bird."), Seed("b", "Name a bird."), Seed("c", "Sort a list.")], 0.7) == 1
    assert forecast([unit()] * 20, 200, alike=40).rows.low < forecast([unit()] * 20, 200, alike=0).rows.low


def test_numbers_are_rounded_outwards():
    assert Range(1.2, 1.2, 1.2).whole == Range(1, 2, 1)
    assert Range(3.0, 3.0000000001).whole == Range(3, 3)


def test_a_pilot_that_shows_no_spread_is_refused():
    with pytest.raises(UserError, match="A pilot of 1 unit shows no spread"):
        forecast([unit()], 2)
    with pytest.raises(UserError, match="level is 1; it must lie between 0 and 1"):
        forecast([unit()] * 2, 2, level=1)
    assert forecast([unit()], 1).rows == Range(1, 1, 1)


# -- the pilot

SEEDS = load_seeds()[:48]


def test_a_larger_pilot_holds_the_seeds_of_a_smaller_one_and_none_takes_the_first_seeds_alone():
    groups = [(seed,) for seed in SEEDS]
    few, many = drawn(groups, 6, 42), drawn(groups, 20, 42)
    assert (len(few), len(many)) == (6, 20)
    assert set(few) < set(many)
    assert many == [group for group in groups if group in many]
    assert few != groups[:6]
    assert drawn(groups, 6, 43) != few
    assert drawn(groups, 99, 42) == groups
    assert len(drawn([tuple(SEEDS[:16]), tuple(SEEDS[16:32])], 5, 42, unit=16)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_pilot_of_all_seeds_takes_what_the_ledger_says_and_gives_the_rows_of_the_run(method, tmp_path):
    made = evolver(method)
    with Ledger(tmp_path / "pilot.sqlite", prices={"rulebook": Price(3, 7)}) as ledger:
        pilot = run_pilot(made, SEEDS, len(SEEDS), ledger, show_progress=False)
        totals, cost = ledger.totals(), ledger.cost
    found = forecast_from(pilot, made, SEEDS)
    assert set(found.spent) == {*totals, ALL}
    for role, t in totals.items():
        amounts = t.attempts, t.prompt_tokens, t.completion_tokens, t.cost
        for name, amount in zip(AMOUNTS, amounts, strict=True):
            assert found.spent[role][name].low == pytest.approx(amount), (role, name)
            assert found.spent[role][name].high == pytest.approx(amount), (role, name)
    assert found.spent[ALL]["cost"].estimate == pytest.approx(cost)
    written = made.write(SEEDS, tmp_path / "out", ledger=tmp_path / "pilot.sqlite", show_progress=False)
    assert found.rows == Range(written.rows, written.rows, written.rows)
    with Ledger(tmp_path / "pilot.sqlite") as ledger:
        assert ledger.totals() == totals


@pytest.mark.parametrize("method", METHODS)
def test_the_run_buys_none_of_the_pilots_calls_again(method, tmp_path):
    made, counted = evolver(method), tmp_path / "both.sqlite"
    plain = made.write(SEEDS, tmp_path / "plain", show_progress=False)
    with Ledger(counted) as ledger:
        run_pilot(made, SEEDS, 10, ledger, show_progress=False)
        bought = {role: t.calls for role, t in ledger.totals().items()}
    made.write(SEEDS, tmp_path / "out", ledger=counted, show_progress=False)
    assert bought["reviewer" if method != "evol_instruct" else "judge"] > 0
    with Ledger(counted) as ledger, Ledger(tmp_path / "plain" / "ledger.sqlite") as alone:
        assert {role: t.calls for role, t in ledger.totals().items()} == {
            role: t.calls for role, t in alone.totals().items()
        }
    for name in ("README.md", "lineage.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert plain.rows > 0


# -- bounds

TEXTS = [f"Describe machine number {number} and its {part}." for number, part in enumerate(["gear", "belt"] * 6)]
NEVER_READ = ScriptedGenerator(lambda request: "no")


def stubborn(request):
    """Rewrites that always pass, so that as many calls as possible follow."""
    asked = rewrite_of(request)
    return changed(*asked) if asked else "Different" if request.kind == "review" else "An answer of some length."


MODELS = {"rules": RULES, "all": ScriptedGenerator(stubborn), "nothing": NEVER_READ}
MODELS["edits"] = ScriptedGenerator(lambda request: "a retired engineer with little time", whole=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("plan_length", [0, 1])
@pytest.mark.parametrize("constraints", ["unchecked", "rules", "model"])
@pytest.mark.parametrize("expert", MODELS)
def test_no_run_leaves_the_bounds_of_its_method(method, plan_length, constraints, expert, tmp_path):
    seeds = [Seed(f"s{number}", text) for number, text in enumerate(TEXTS)]
    model = MODELS[expert]
    more = {"plan_length": plan_length, "retry_cut": True, "max_tokens": 64, "constraints": constraints}
    made = evolver(method, model, model, model, **more)
    found = bounds(made, seeds, {})
    assert found.rows.low == 0
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        pilot = run_pilot(made, seeds, len(seeds), ledger, show_progress=False)
        for role, t in ledger.totals().items():
            assert found.spent[role]["calls"].holds(t.calls), role
    assert found.rows.holds(pilot.statistics.rows)


def test_bounds_are_reached_where_nothing_and_where_everything_passes(tmp_path):
    seeds = [Seed(f"s{number}", text) for number, text in enumerate(TEXTS)]
    every = replace_calls(ScriptedGenerator(stubborn), seeds, tmp_path / "every.sqlite", OPERATIONS)
    assert every == (bounds(evolver(expert=ScriptedGenerator(stubborn)), seeds, {}).spent["expert"]["calls"].high, 36)
    nothing = replace_calls(NEVER_READ, seeds, tmp_path / "nothing.sqlite", OPERATIONS[1:2])
    assert nothing == (12, 0)


def replace_calls(model, seeds, path, operations):
    """Calls of the expert and rows, where `model` has every role."""
    args = EvolverConfig(operations_per_episode=3, dedup_threshold=1.0)
    made = DatasetEvolver(model, model, uniform_chooser(operations), operations, args)
    with Ledger(path) as ledger:
        rows = run_pilot(made, seeds, len(seeds), ledger, show_progress=False).statistics.rows
        return ledger.totals()["expert"].calls, rows


def test_tokens_and_cost_lie_between_those_of_the_prompts_for_the_seeds_and_of_the_longest_answers():
    made = evolver("plan_answer", expert=make_generator("endpoint:m@http://127.0.0.1:9/v1"), max_tokens=100)
    found = bounds(made, [Seed("a", "x" * 400)], {"m": Price(1_000_000, 2_000_000)})
    paid = found.spent["expert"]
    assert (paid["calls"], paid["answer tokens"]) == (Range(0, 2), Range(0, 200))
    assert paid["cost"].high == pytest.approx(paid["prompt tokens"].high + 2 * 200, abs=1)
    assert 2 * 400 / 4 < paid["prompt tokens"].high < 2 * 1000


# -- held-out seeds: each run evolves all seeds after a pilot of some


def foretold(made, seeds, size, path):
    """The forecast from a pilot of `size` seeds, and what the whole run then took and gave, by (role, amount)."""
    with Ledger(path) as ledger:
        found = forecast_from(run_pilot(made, seeds, size, ledger, show_progress=False), made, seeds)
    with Ledger(path) as ledger:
        results = [result for chain in made.recorded(ledger).evolve(seeds) for result in chain]
        totals = ledger.totals()
    rows = sum(isinstance(result, Example) for result in results)
    true = {(role, "calls"): t.attempts for role, t in totals.items()}
    true |= {(role, "prompt tokens"): t.prompt_tokens for role, t in totals.items()}
    true |= {(role, "answer tokens"): t.completion_tokens for role, t in totals.items()}
    held = {key: found.spent[key[0]][key[1]].holds(number) for key, number in true.items()}
    return {**held, ("dataset", "rows"): found.rows.holds(rows)}, found, true


RUNS = [(method, seed) for method in METHODS for seed in (1, 2)]


def test_in_nine_of_ten_runs_by_rules_all_intervals_hold_calls_tokens_and_rows(tmp_path):
    seeds, held = load_seeds(), []
    for number, (method, seed) in enumerate(RUNS):
        part = seeds[number * 20 : number * 20 + 100]
        made = evolver(method, seed=seed)
        kept, found, true = foretold(made, part, 24, tmp_path / f"{number}.sqlite")
        assert len(found.spent) == len({role for role, _ in true}) + 1
        assert found.spent[ALL]["calls"].high < 2.2 * found.spent[ALL]["calls"].low  # Wide intervals hold everything.
        held.append(all(kept.values()))
    assert len(held) == 10
    assert sum(held) >= 9


def wordy(body):
    """The rulebook's answer; to an instruction, one whose length varies much, as a language model's does."""
    text = rulebook_answer(body)
    if body["messages"][-1]["content"].startswith(("You ", "[")):
        return text
    return " ".join(itertools.islice(itertools.cycle(text.split()), 4 + 2 ** (sum(text.encode()) % 9)))


def test_in_nine_of_ten_runs_against_a_server_all_intervals_hold_calls_tokens_and_rows(tmp_path):
    seeds, held = load_seeds(), []
    shares = {"error": 0.05, "length": 0.05, "empty": 0.02}
    for number, (method, seed) in enumerate(RUNS):
        with EndpointServer(wordy, shares=shares, fault_seed=seed) as server:
            expert = make_generator({"endpoint": f"stand-in@{server.url}", "backoff": 0.001, "concurrency": 16})
            made = evolver(method, expert, seed=seed)
            made.operations = WHOLE
            part = seeds[number * 20 : number * 20 + 80]
            kept, _, true = foretold(made, part, 20, tmp_path / f"{number}.sqlite")
            received = server.counts()["received"]
        paid = sum(number for (role, what), number in true.items() if what == "calls" and role in ("expert", "judge"))
        assert paid == received
        held.append(all(kept.values()))
    assert sum(held) >= 9
