"""The study of choosers with a real model: a toy run on rules from start to table, a README that fits its results."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from recipes.real_policy import study  # noqa: E402
from teamsrl_hf.evaluation.study import BEGIN, END, with_tables  # noqa: E402

FOLDER = ROOT / "recipes" / "real_policy"
ARMS = ("--arms", "uniform", "best_single", "linucb", "policy")


def _study(*arguments):
    study.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of a study of 6 held-out seeds on rules."""
    folder = tmp_path_factory.mktemp("real_policy")
    sizes = ("--held_out", 6, "--rollouts", 1, "--training_seeds", 2)
    _study("run", "--output_dir", folder, "--model", '"rulebook"', *sizes, *ARMS)
    return folder


def _to_read(folder, tmp_path, each=10):
    _study("sample", folder, "--output", tmp_path / "to_read.jsonl", "--each", each, *ARMS)
    return [json.loads(line) for line in (tmp_path / "to_read.jsonl").read_text().splitlines()]


def test_every_arm_evolves_the_same_held_out_seeds_once_for_each_training_seed(toy):
    names = sorted(file.name for file in toy.glob("*-*.json"))
    assert names == [
        *("best_single-0.json", "linucb-0.json", "linucb-1.json"),
        *("policy-0.json", "policy-1.json", "uniform-0.json"),
    ]
    outcomes = [json.loads((toy / name).read_text()) for name in names]
    first_texts = [[chain[0]["instruction"] for chain in outcome["chains"]] for outcome in outcomes]
    assert first_texts == [first_texts[0]] * 6
    assert [len(chain) for chain in outcomes[0]["chains"]] == [3] * 6


def test_a_reader_cannot_see_the_arm_or_what_the_gate_said_and_reads_nothing_twice(toy, tmp_path):
    rows = _to_read(toy, tmp_path)
    assert {name for row in rows for name in row} == {"id", "operation", "instruction", "raw"}
    asked = [(row["operation"], row["instruction"]) for row in rows]
    assert len(asked) == len(set(asked)) > 20


def test_the_table_counts_what_was_read_in_each_arm(toy, tmp_path):
    rows = [row | {"label": "good" if number % 2 else "bad"} for number, row in enumerate(_to_read(toy, tmp_path))]
    labels, readme = tmp_path / "labels.jsonl", tmp_path / "README.md"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    readme.write_text(f"Before.\n{BEGIN}\n{END}\nAfter.\n")
    _study("table", toy, "--labels", labels, "--readme", readme, "--each", 10, *ARMS)
    results = json.loads((tmp_path / "results.json").read_text())
    good = {(row["operation"], row["instruction"]) for row in rows if row["label"] == "good"}
    for record, outcomes in zip(results["records"], study.read_arms(toy, ARMS[1:]), strict=True):
        drawn = study.drawn_steps(outcomes, 10)
        assert (record["read"], record["good"]) == (len(drawn), len(good.intersection(drawn)))
        assert len(record["reward"]) == (1 if record["arm"] in ("uniform", "best_single") else 2)
    text = readme.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert study.render(results) in text


def test_a_study_goes_on_where_it_stopped(toy, capsys):
    before = (toy / "linucb-1.json").read_bytes()
    (toy / "linucb-1.json").unlink()
    sizes = ("--held_out", 6, "--rollouts", 1, "--training_seeds", 2)
    _study("run", "--output_dir", toy, "--model", '"rulebook"', *sizes, *ARMS)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["linucb 1"]
    assert (toy / "linucb-1.json").read_bytes() == before


def test_a_missing_arm_is_named(tmp_path):
    with pytest.raises(study.UserError, match="holds no outcome of paper; run the study first"):
        _study("sample", tmp_path, "--output", tmp_path / "x.jsonl", "--arms", "paper")


def test_the_committed_readme_tells_the_committed_results():
    results, readme = json.loads((FOLDER / "results.json").read_text()), (FOLDER / "README.md").read_text()
    assert with_tables(readme, study.render(results)) == readme
