"""What the options of `recipes/evolve_dataset.py` do, from YAML to rows: filters, prices, choosers, methods."""

import json
from types import SimpleNamespace

import pytest
import yaml
from asked import EVOLVE_RULES, WHOLE
from datasets import load_dataset
from endpoint_server import EndpointServer

from teamsrl_hf import Ledger, LinUCBChooser, ThompsonChooser, __version__, load_seeds, save_chooser
from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.errors import NothingMade, Stopped
from teamsrl_hf.models.specification import at_pace, identity
from teamsrl_hf.publish.lineage import read_lineage, weights_digest
from teamsrl_hf.text.operations import OPERATIONS

RECIPE = load_recipe("evolve_dataset")
SEEDS = [
    "Explain how a sundial tells the time.",
    "List three uses of baking soda in a kitchen.",
    "Name a bird of prey.",
]


@pytest.fixture
def evolve(tmp_path):
    """A function that evolves three seeds, by uniform choice unless told; returns the summary."""
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS))

    def run(*options, folder="out"):
        where = ["--seeds", str(path), "--output_dir", str(tmp_path / folder), "--test_size", "0"]
        rules = EVOLVE_RULES[2:] if "--config" in options else EVOLVE_RULES
        if any("endpoint" in str(option) for option in options) or "--config" in options:
            rules += WHOLE
        return RECIPE.main([*where, *rules, "--chooser", "uniform", *map(str, options)])

    return run


def test_a_row_that_repeats_a_benchmark_is_refused_and_the_card_tells_it_without_a_path(evolve, tmp_path):
    plain = evolve(folder="plain")
    taken = load_dataset(str(tmp_path / "plain"), split="train")[0]["prompt"][0]["content"]
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": taken}) + "\n")
    summary = evolve("--decontaminate", f"{tmp_path}/exam.jsonl:question")
    assert summary["rejections"]["contaminated"] >= 1
    assert summary["rows"] < plain["rows"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Rows refused because they repeat a text of `exam.jsonl`: {summary['rejections']['contaminated']}." in card
    assert str(tmp_path) not in card


def test_lengths_are_limited(evolve):
    for options, reason in ((("--min_words", 1000), "too_short"), (("--max_response_words", 3), "answer_too_long")):
        with pytest.raises(NothingMade) as ended:
            evolve(*options, folder=reason)
        assert ended.value.summary["rejections"][reason] > 0


def test_a_filter_that_cannot_be_made_is_told_before_anything_is_written(tmp_path, capsys):
    command = ["evolve", *EVOLVE_RULES, "--chooser", "uniform", "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--decontaminate", "no-such-file.jsonl:question"]) == 2
    assert "no-such-file.jsonl" in capsys.readouterr().err
    assert main([*command, "--min_words", "9", "--max_words", "3"]) == 2
    assert "min_words is 9 and max_words 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prices_from_yaml_are_what_calls_cost_and_budgets_are_in_their_money(evolve, tmp_path):
    with EndpointServer() as server:
        config = tmp_path / "evolve.yaml"
        config.write_text(
            f"expert: {{endpoint: stand-in@{server.url}, concurrency: 3, max_retries: 2}}\n"
            "prices: {stand-in: {prompt: 2, completion: 8.0}}\n"
        )
        evolve("--config", config)
        assert server.counts()["most_in_flight"] <= 3
        with Ledger(tmp_path / "out" / "ledger.sqlite") as ledger:
            expert = ledger.totals()["expert"]
        assert expert.cost == pytest.approx((2 * expert.prompt_tokens + 8 * expert.completion_tokens) / 1e6)
        assert expert.cost > 0
        before = len(server.log)
        # The same seeds into another folder with a new ledger: a tenth of the money buys about a tenth.
        with pytest.raises(Stopped, match=r"budget of \S+ cost is spent"):
            evolve("--config", config, "--budget_cost", expert.cost / 10, "--max_tokens", "64", folder="poor")
        assert len(server.log) - before < 0.3 * before
        with Ledger(tmp_path / "poor" / "ledger.sqlite") as ledger:
            assert ledger.cost <= expert.cost / 10


def test_the_pace_the_price_and_the_budget_may_change_when_a_run_goes_on_and_the_model_may_not(evolve, tmp_path):
    with EndpointServer() as server:
        spec = f"endpoint:stand-in@{server.url}"
        with pytest.raises(Stopped):
            evolve("--expert", spec, "--budget_calls", "3")
        (tmp_path / "more.yaml").write_text(
            f"expert: {{endpoint: stand-in@{server.url}, timeout: 9, requests_per_minute: 60000}}\n"
            "prices: {stand-in: {prompt: 1, completion: 1}}\nconcurrency: 4\n"
        )
        assert evolve("--config", tmp_path / "more.yaml")["rows"] > 0
        with pytest.raises(ValueError, match="holds a run with expert = "):
            evolve("--expert", spec.replace("stand-in", "another"))


@pytest.mark.parametrize("prices", ["{gpt: 3}", "{gpt: {input: 3}}", "[gpt]", "{gpt: {prompt: cheap}}"])
def test_prices_that_say_something_else_are_told_in_one_line(prices, tmp_path, capsys):
    (tmp_path / "evolve.yaml").write_text(
        f"chooser: uniform\nprices: {prices}\nexpert: rulebook\nreviewer: rulebook\n"
    )
    assert main(["evolve", "--config", str(tmp_path / "evolve.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "price" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("made", "explores"), [(ThompsonChooser, True), (LinUCBChooser, False)])
def test_bandit_is_whichever_the_folder_holds(made, explores, tmp_path):
    save_chooser(made(OPERATIONS), tmp_path)
    arguments = SimpleNamespace(chooser="bandit", policy=str(tmp_path))
    operations = SimpleNamespace(select=lambda: OPERATIONS, operations=None, own_operations=None)
    chooser, _ = RECIPE.pick_chooser(arguments, operations)
    assert (type(chooser), chooser.explore) == (made, explores)
    arguments.chooser = "linucb" if made is ThompsonChooser else "thompson"
    with pytest.raises(ValueError, match="use --chooser bandit"):
        RECIPE.pick_chooser(arguments, operations)


@pytest.mark.parametrize("method", ["plan", "plan_answer", "packed", "evol_instruct"])
def test_every_method_runs_by_its_name(method, evolve, tmp_path):
    summary = evolve("--method", method, "--instructor", "rulebook")
    assert summary["seeds"] == 3
    assert summary["rows"] > 0
    assert f"method `{method}`" in (tmp_path / "out" / "README.md").read_text()


def test_a_planned_method_without_an_instructor_says_what_is_missing(tmp_path, capsys):
    command = ["evolve", *EVOLVE_RULES, "--chooser", "uniform", "--method", "packed"]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 2
    assert "needs an instructor" in capsys.readouterr().err


def test_a_specification_is_compared_without_its_pace():
    spec = {"endpoint": "m@https://h/v1", "concurrency": 9, "requests_per_minute": 60}
    assert identity(spec) == "endpoint:m@https://h/v1"
    assert at_pace("endpoint:m@https://h/v1", 7, 1)["concurrency"] == 7
    assert at_pace(spec, 7, 1)["concurrency"] == 9


def test_processes_share_the_rates_of_an_endpoint():
    spec = {"endpoint": "m@https://h/v1", "requests_per_minute": 60, "tokens_per_minute": 1000}
    told = at_pace(spec, 16, 4)
    assert (told["requests_per_minute"], told["tokens_per_minute"]) == (15, 250)


def test_the_card_and_the_record_tell_seeds_splits_chooser_versions_and_what_makes_it_again(evolve, tmp_path):
    save_chooser(LinUCBChooser(OPERATIONS), tmp_path / "bandit")
    evolve("--chooser", "linucb", "--policy", tmp_path / "bandit", "--test_size", "0.4", "--min_words", "3")
    known = read_lineage(tmp_path / "out", "dataset")
    card = (tmp_path / "out" / "README.md").read_text()
    seeds, chooser = known["seeds"], known["chooser"]
    assert (seeds["number"], len(seeds["train"]), len(seeds["test"])) == (3, 2, 1)
    assert f"- seeds: 3 of `seeds.jsonl`, digest `{seeds['digest']}`" in card
    assert "2 seeds are in `train` and 1 in `test`" in card
    assert chooser["weights"] == weights_digest(tmp_path / "bandit")
    assert f"- chooser: `linucb`, `bandit`, weights with SHA-256 `{chooser['weights']}`" in card
    assert f"teamsrl-hf {__version__}" in card
    assert yaml.safe_load(known["recipe"]) == {
        "seeds": "seeds.jsonl",
        "test_size": 0.4,
        "chooser": "linucb",
        "policy": "bandit",
        "expert": "rulebook",
        "reviewer": "rulebook",
        "license": "unknown",
        "min_words": 3,
    }
    assert known["recipe"] in card
    assert str(tmp_path) not in card


def test_rows_that_are_no_seeds_are_counted_in_the_record_and_the_card(evolve, tmp_path, caplog):
    with (tmp_path / "seeds.jsonl").open("a") as file:
        file.write('{"instruction": ""}\n{"instruction": "Sort.<|im_end|>"}\n{"instruction": " "}\n')
    evolve("--skip_bad_seeds", "true")
    assert "rows left out: 3 (empty instruction 2, control token 1)" in caplog.text
    known = read_lineage(tmp_path / "out", "dataset")["seeds"]
    assert (known["number"], known["left_out"]) == (3, {"empty instruction": 2, "control token": 1})
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        f"`{known['digest']}`; rows of the source that were left out: empty instruction 2, control token 1\n" in card
    )


def test_an_endpoints_address_is_in_no_recipe(evolve, tmp_path):
    with EndpointServer() as server:
        evolve("--expert", json.dumps({"endpoint": f"stand-in@{server.url}", "concurrency": 2}))
    recipe = read_lineage(tmp_path / "out", "dataset")["recipe"]
    assert yaml.safe_load(recipe)["expert"] == "endpoint:stand-in"
    assert recipe in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("command", ["evolve", "train-policy", "sft"])
def test_a_licence_the_hub_does_not_know_is_refused_before_anything_is_asked_or_trained(command, tmp_path, capsys):
    with EndpointServer() as server:
        spec, cpu = f"endpoint:stand-in@{server.url}", ("--use_cpu", "true")
        options = {
            "evolve": ["--chooser", "uniform", "--reviewer", "rulebook", "--expert", spec],
            "train-policy": ["--reviewer", "rulebook", "--instructor", spec, *cpu, "--max_steps", "16"],
            "sft": ["--tiny_model", "true", "--dataset_name", "no-such-dataset", *cpu, "--bf16", "false"],
        }[command]
        given = [command, *options, "--license", "Apache 2.0", "--output_dir", str(tmp_path / "out")]
        assert main(given) == 2
        assert not server.log
    assert "The Hub knows no licence 'Apache 2.0' (did you mean apache-2.0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "license"),
    [
        ((), "apache-2.0"),
        (("--license", "mit"), "mit"),
        (("--expert", "endpoint:stand-in@URL"), "unknown"),
        (("--seeds", "seeds.jsonl"), "unknown"),
    ],
)
def test_our_licence_is_for_what_rules_make_of_our_seeds(options, license, tmp_path, monkeypatch):
    monkeypatch.setattr(RECIPE.SeedArguments, "load", lambda self: (load_seeds()[:3], []))
    common = ["--chooser", "uniform", "--operations_per_episode", "1", "--output_dir", str(tmp_path / "out")]
    with EndpointServer() as server:
        RECIPE.main([*EVOLVE_RULES, *WHOLE, *common, *(option.replace("URL", server.url) for option in options)])
    assert f"\nlicense: {license}\n" in (tmp_path / "out" / "README.md").read_text()
