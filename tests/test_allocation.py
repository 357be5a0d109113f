"""The most for a budget: what a pilot decides, that the run keeps to it, and that what was expected comes true."""

import json
from dataclasses import replace

import pytest
from asked import EVOLVE_RULES

from teamsrl_hf import (
    OPERATIONS,
    Budget,
    DatasetEvolver,
    EvolverConfig,
    Ledger,
    OperationPolicy,
    OperationPolicyConfig,
    Rulebook,
    UserError,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.cli import main
from teamsrl_hf.evolve.forecast.allocation import TARGETS, Allocation, allocate, chosen, settle
from teamsrl_hf.evolve.forecast.intervals import ALL
from teamsrl_hf.evolve.shards import Team
from teamsrl_hf.evolve.write import Payment
from teamsrl_hf.models.budget import BudgetExhausted
from teamsrl_hf.runs import read_run
from teamsrl_hf.types import Candidate, Example, Rejection, Review, Seed, Transition, Verifier

SEEDS = load_seeds()
UNIFORM = uniform_chooser(OPERATIONS)


def evolver(chooser=UNIFORM, **settings):
    model = Rulebook()
    return DatasetEvolver(model, model, chooser, OPERATIONS, EvolverConfig(**settings), instructor=model)


def allocated(made, seeds, budget, path, target="rows", size=12) -> list[Allocation]:
    with Ledger(path, budget=budget) as ledger:
        return allocate(made, seeds, size, ledger, budget, target, show_progress=False)


def evolved(made, seeds, path):
    with Ledger(path) as ledger:
        results = [result for chain in made.recorded(ledger).evolve(seeds) for result in chain]
        return sum(isinstance(result, Example) for result in results), ledger.attempts


def test_shorter_chains_are_tried_without_a_further_call(tmp_path):
    made, path = evolver(operations_per_episode=4), tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        allocate(made, SEEDS[:80], 12, ledger, Budget(calls=300), show_progress=False)
        tried = ledger.attempts
    with Ledger(tmp_path / "other.sqlite") as ledger:
        allocate(made.with_settings(operations_per_episode=1), SEEDS[:80], 12, ledger, Budget(calls=300))
        alone = ledger.attempts
    assert alone < tried == evolved(made, [seed for seed in SEEDS[:80] if seed in _pilot(made)], path)[1]


def _pilot(made):
    from teamsrl_hf.evolve.forecast.pilot import drawn

    return [seed for group in drawn(list(made.groups(SEEDS[:80])), 12, made.args.seed) for seed in group]


def test_the_best_way_comes_first_and_stays_within_the_budget(tmp_path):
    found = allocated(evolver(operations_per_episode=4), SEEDS[:200], Budget(calls=500), tmp_path / "ledger.sqlite")
    likely = [one.expected.rows.estimate for one in found]
    assert likely == sorted(likely, reverse=True)
    assert {one.operations_per_episode for one in found} == {1, 2, 3, 4}
    assert all(one.expected.spent[ALL]["calls"].estimate <= 500 for one in found)
    more = allocated(evolver(operations_per_episode=4), SEEDS[:200], Budget(calls=900), tmp_path / "ledger.sqlite")
    assert more[0].expected.rows.estimate > found[0].expected.rows.estimate


def test_a_chooser_that_values_states_may_end_chains_early(tmp_path):
    policy = OperationPolicy(OperationPolicyConfig())
    made = evolver(policy.choose, operations_per_episode=2)
    found = allocated(made, SEEDS[:60], Budget(calls=300), tmp_path / "ledger.sqlite")
    ended = {one.stop_below for one in found if one.operations_per_episode == 2}
    assert len(ended) == 4
    assert None in ended


def test_a_planned_method_is_given_seeds_alone(tmp_path):
    made = evolver(method="plan_answer", operations_per_episode=3)
    (found,) = allocated(made, SEEDS[:200], Budget(calls=400), tmp_path / "ledger.sqlite")
    assert (found.operations_per_episode, found.stop_below) == (3, None)
    assert 12 < found.seeds < 200


def test_targets_count_rows_verified_rows_and_seeds_with_a_row():
    step = Transition("Name a bird.", "deepen", "Name two birds.", Review("not_equal"), "m")
    plain = Candidate("c", Seed("s", "Name a bird."), "s", 0, ("deepen",), step)
    proved = replace(plain, transition=replace(step, verifiers=(Verifier("x"),)), verified=(True,))
    results = [Example(plain), Example(proved), Rejection(plain, "unchanged")]
    assert {name: count(results) for name, count in TARGETS.items()} == {"rows": 2, "verified": 1, "diversity": 1}
    assert {name: count(results[2:]) for name, count in TARGETS.items()} == {"rows": 0, "verified": 0, "diversity": 0}


def test_the_pilots_seeds_are_among_those_evolved_in_the_order_of_all():
    assert chosen(SEEDS[:6], [SEEDS[4], SEEDS[40]], 3) == [SEEDS[0], SEEDS[1], SEEDS[4]]
    assert chosen(SEEDS[:6], [SEEDS[4], SEEDS[5]], 1) == [SEEDS[4], SEEDS[5]]


def test_a_budget_for_the_pilot_alone_gives_its_seeds_and_none_or_a_smaller_one_is_told(tmp_path):
    made, path = evolver(operations_per_episode=4), tmp_path / "ledger.sqlite"
    with pytest.raises(UserError, match="needs a budget; give budget_calls"):
        allocated(made, SEEDS[:80], Budget(), path)
    allocated(made, SEEDS[:80], Budget(calls=900), path)
    with Ledger(path) as ledger:
        pilot = ledger.attempts
    assert {one.seeds for one in allocated(made, SEEDS[:80], Budget(calls=pilot), path)} == {12}
    with pytest.raises(BudgetExhausted, match="The budget of 20 calls is spent"):
        allocated(made, SEEDS[:80], Budget(calls=20), tmp_path / "other.sqlite")


def test_more_held_out_seeds_than_the_budget_pays_are_told(tmp_path):
    made = evolver(operations_per_episode=3)
    payment = Payment(tmp_path / "ledger.sqlite", budget=Budget(calls=120))
    with pytest.raises(UserError, match="but 100 are held out, which are all evolved, and the pilot took"):
        settle(made, SEEDS[:40], SEEDS[40:140], tmp_path, payment, "rows", 12, say=lambda text: None)


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(Team, "join", classmethod(lambda cls: Team(0, 2)))
    with pytest.raises(UserError, match="one process"):
        settle(evolver(), SEEDS[:9], [], tmp_path, Payment(tmp_path / "ledger.sqlite", budget=Budget(calls=9)), "rows")


# -- the command


@pytest.fixture
def evolve(tmp_path, capsys):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": seed.text}) + "\n" for seed in SEEDS[:120]))

    def run(*options, folder="out"):
        where = ["--seeds", str(seeds), "--output_dir", str(tmp_path / folder), "--chooser", "uniform"]
        status = main(["evolve", *where, *EVOLVE_RULES, "--operations_per_episode", "3", *map(str, options)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_command_says_what_to_expect_and_keeps_to_the_budget(evolve, tmp_path):
    target = "--target", "rows", "--budget_calls", 250, "--test_size", 0.05
    status, said, _ = evolve(*target, "--pilot", 16)
    assert status == 0
    assert "What the budget gives, of 120 seeds. The run takes the first line.\n" in said
    assert not (tmp_path / "out" / "run.json").exists()
    status, said, told = evolve(*target)
    assert status == 0
    record = read_run(tmp_path / "out")
    decided, summary = record["arguments"]["allocation"], record["summary"]
    assert decided["asked"] == {"operations_per_episode": 3, "stop_below": None}
    assert decided["pilot"] == 20
    assert f"rows      {summary['rows']} from {decided['seeds']} seeds" in told
    with Ledger(tmp_path / "out" / "ledger.sqlite") as ledger:
        assert 150 < ledger.attempts <= 250
    # A higher budget changes nothing that has been decided.
    status, said, _ = evolve("--target", "rows", "--budget_calls", 900, "--test_size", 0.05)
    assert (status, said) == (0, f"{tmp_path / 'out'} is already complete.\n")


def test_a_target_without_a_budget_is_an_error_of_one_line(evolve):
    status, _, told = evolve("--target", "rows")
    assert status == 2
    assert "A target needs a budget; give budget_calls, budget_tokens, or budget_cost and prices." in told


def test_another_folder_is_left_alone(evolve, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    status, _, told = evolve("--target", "rows", "--budget_calls", 250)
    assert status == 2
    assert "is not empty and was not made by this command" in told
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_in_ten_runs_the_outcome_lies_in_what_was_expected_and_within_the_budget(tmp_path):
    held = []
    for number in range(10):
        made = evolver(seed=number, operations_per_episode=4, method=("stepwise", "evol_instruct")[number % 2])
        part, path = SEEDS[number * 12 : number * 12 + 180], tmp_path / f"{number}.sqlite"
        budget = Budget(calls=500 + 100 * (number % 3) + 300 * (number % 2))
        best = allocated(made, part, budget, path, size=24)[0]
        settings = {"operations_per_episode": best.operations_per_episode, "stop_below": best.stop_below}
        seeds = chosen(part, [seed for group in _drawn(made, part, 24) for seed in group], best.seeds)
        rows, calls = evolved(made.with_settings(**settings), seeds, path)
        assert len(seeds) == best.seeds
        assert (
            best.expected.rows.high < 6 * best.expected.rows.low + 30
        )  # An interval that holds everything says nothing.
        held.append((best.expected.rows.holds(rows), calls <= budget.calls))
    assert held == [(True, True)] * 10


def _drawn(made, seeds, size):
    from teamsrl_hf.evolve.forecast.pilot import drawn

    return drawn(list(made.groups(seeds)), size, made.args.seed)
