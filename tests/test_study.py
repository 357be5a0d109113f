"""The study of learned choosers: disjoint held-out sets, a toy run from start to tables, a README that fits."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # The processes a study starts look its functions up by the module's name.
from recipes.operation_policy import study  # noqa: E402
from teamsrl_hf.evaluation import study as tables  # noqa: E402
from teamsrl_hf.evaluation.intervals import mean_interval  # noqa: E402
from teamsrl_hf.types import Seed  # noqa: E402

FOLDER = ROOT / "recipes" / "operation_policy"
TOY = (
    *(
        "--training_seeds",
        "2",
        "--episodes",
        "64",
        "--budget_episodes",
        "64",
        "128",
        "--budget_seeds",
        "2",
        "--ablation_seeds",
        "2",
    ),
    *("--vendi_draws", "2", "--sentence_embeddings", "false"),
)
EXTRA = [
    "Describe a walk through an old harbour town.",
    "Why do cats purr?",
    "Write a short poem about rain.",
    "List three uses of a paper clip.",
]


def _command(folder, *options, processes=1):
    shutil.copy(FOLDER / "README.md", folder / "README.md")
    places = ("--output_dir", str(folder / "out"), "--readme", str(folder / "README.md"))
    return [*TOY, *places, "--processes", str(processes), *options]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A study of two training seeds: its folder, its command, its results."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "own.jsonl").write_text("\n".join(json.dumps({"instruction": text}) for text in EXTRA))
    runs = ("uniform", "linucb", "policy", "saturated", "coin")
    command = _command(folder, "--extra_seeds", str(folder / "own.jsonl"), "--runs", *runs)
    study.main(command)
    return folder, command, json.loads((folder / "out" / "results.json").read_text())


def test_no_seed_stands_in_two_sets_and_no_new_domain_in_training():
    train, held_out = study.held_out_sets(domains=5, share=0.24)
    ids = [{seed.id for seed in seeds} for seeds in (train, *held_out.values())]
    assert list(map(len, ids)) == [198, 58, 61]
    assert len(set.union(*ids)) == 317
    rows = map(json.loads, study.BUILT_IN.read_text().splitlines())
    domain_of = {row["id"]: row["domain"] for row in rows}
    trained, known, new = ({domain_of[id] for id in part} for part in ids)
    assert known <= trained
    assert new == {"astronomy", "business", "environment", "history", "physics"}
    assert not new & trained


def test_every_run_is_measured_on_every_set_once_per_training_seed(toy):
    _, _, results = toy
    assert {name: facts["seeds"] for name, facts in results["facts"]["sets"].items()} == {
        "trained_domains": 58,
        "new_domains": 61,
        "own": 4,
    }
    told = sorted((r["arm"], r["steps"], r["seed"]) for r in results["records"] if r["set"] == "own")
    arms = ["coin", "coin_uniform", "linucb", "policy", "policy_drawn", "saturated", "uniform"]
    further = [(arm, 768, seed) for arm in ("linucb", "policy", "policy_drawn") for seed in (0, 1)]
    assert told == sorted([(arm, 384, seed) for arm in arms for seed in (0, 1)] + further)
    for record in results["records"]:
        assert 0 < record["rows_per_call"] <= 1
        assert record["calls_per_row"] > 1
    compared = [r for r in results["records"] if r["run"] != "coin" and r["steps"] == 384]
    sizes = {name: facts["vendi_rows"] for name, facts in results["facts"]["sets"].items()}
    assert all(1 < record["vendi_hashed"] <= sizes[record["set"]] for record in compared)


def test_operations_are_counted_by_step(toy):
    (counts,) = [e for e in toy[2]["operations"] if (e["arm"], e["set"]) == ("uniform", "own")]
    assert [sum(step) for step in counts["tried"]] == [8] * 6  # 4 seeds, 2 training seeds
    for tried, passed in zip(counts["tried"], counts["passed"]):
        assert all(p <= t for t, p in zip(tried, passed))


def test_a_finished_study_is_not_run_again_and_a_stopped_one_trains_only_what_lacks(toy, capsys):
    folder, command, results = toy
    capsys.readouterr()
    study.main(command)
    assert capsys.readouterr().out == f"{folder / 'out'} is already complete.\n"
    run = json.loads((folder / "out" / "run.json").read_text())
    (folder / "out" / "run.json").write_text(json.dumps({**run, "summary": None}))
    (folder / "out" / "runs" / "uniform-64-1.json").unlink()
    study.main(command)
    assert "1/1 uniform, 64 chains, seed 1" in capsys.readouterr().out
    again = json.loads((folder / "out" / "results.json").read_text())
    assert (again["records"], again["operations"]) == (results["records"], results["operations"])


@pytest.mark.slow
def test_two_processes_find_what_one_finds(toy, tmp_path):
    study.main(_command(tmp_path, "--runs", "uniform", "linucb", processes=2))
    found = json.loads((tmp_path / "out" / "results.json").read_text())["records"]
    names = ("run", "arm", "set", "steps", "seed", "reward", "rows_per_call", "words")
    expected = [r for r in toy[2]["records"] if r["run"] in ("uniform", "linucb") and r["set"] != "own"]
    assert [[r[n] for n in names] for r in found] == [[r[n] for n in names] for r in expected]


def test_the_tables_are_written_between_the_markers_and_nothing_else_is_touched(toy):
    folder, _, results = toy
    before, after = (FOLDER / "README.md").read_text(), (folder / "README.md").read_text()
    assert after.split(tables.BEGIN)[0] == before.split(tables.BEGIN)[0]
    assert after.split(tables.END)[1] == before.split(tables.END)[1]
    assert after != before
    assert tables.render(results) in after
    assert (folder / "results.json").read_text() == (folder / "out" / "results.json").read_text()


def test_the_committed_readme_tells_the_committed_results():
    results = json.loads((FOLDER / "results.json").read_text())
    readme = (FOLDER / "README.md").read_text()
    assert tables.with_tables(readme, tables.render(results)) == readme


def test_the_committed_study_has_ten_training_seeds_and_does_not_narrow_the_dataset():
    results = json.loads((FOLDER / "results.json").read_text())
    assert results["facts"]["training_seeds"] >= 10
    for name in ("trained_domains", "new_domains"):
        for measure in ("reward", "rows_per_call", "vendi_hashed", "vendi_minilm"):
            mean, half = mean_interval(tables._paired(results, "policy", "uniform", name, measure))
            assert mean - half > 0, (name, measure)


def test_a_coin_falls_anew_at_every_step_whatever_was_tried_before(monkeypatch):
    seeds = [Seed(f"s{i}", f"Explain to a child what number {i} is good for.") for i in range(400)]

    def shares():
        found = study.evolved(lambda states, luck: [1] * len(states), seeds, study.CoinInstructor(("test",)), seed=1)
        return [passed[2] / tried[2] for tried, passed in zip(found["tried"], found["passed"])]

    assert shares() == pytest.approx([0.35] * 6, abs=0.07)  # Three standard errors.
    # An evolver does not ask a chain's question twice: there what failed once fails for good.
    monkeypatch.setattr(study, "tossed", study.DatasetEvolver.evolve)
    assert shares()[5] < 0.02


def test_the_readmes_command_parses():
    command = r"python recipes/operation_policy/study\.py --config (\S+) --output_dir (\S+)"
    config, output = re.search(command, (FOLDER / "README.md").read_text()).groups()
    settings = yaml.safe_load((ROOT / config).read_text())
    (args,) = study.parse((study.StudyArguments,), ["--config", str(ROOT / config), "--output_dir", output])
    assert {name: getattr(args, name) for name in settings} == settings


def test_an_unknown_run_and_a_single_training_seed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Unknown run 'best' in runs; use uniform, paper"):
        study.StudyArguments(str(tmp_path), runs=["best"])
    with pytest.raises(ValueError, match="training_seeds is 1; an interval needs at least 2"):
        study.StudyArguments(str(tmp_path), training_seeds=1)


def test_the_interval_is_students():
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5)


def test_a_constant_reward_changes_nothing(toy):
    results = toy[2]
    assert tables._paired(results, "saturated", "uniform", "trained_domains", "reward") == pytest.approx(
        [0, 0], abs=0.2
    )
