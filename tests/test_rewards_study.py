"""The study of rewards about a student: it runs on a tiny model, resumes from its ledger, and writes its own table."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from recipes.rewards import study  # noqa: E402
from teamsrl_hf.sft.tiny import build_tiny_model  # noqa: E402
from teamsrl_hf.text.seeds import load_seeds  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The results of a small run, and what it was started with."""
    folder = tmp_path_factory.mktemp("study")
    model = build_tiny_model([seed.text for seed in load_seeds()[:60]], folder / "tiny")
    readme = folder / "README.md"
    readme.write_text(f"# Study\n\n{study.BEGIN}\nold\n{study.END}\n\nKept.\n")
    options = {"student": f"transformers:{model}", "expert": "rulebook", "rows": 5, "held_out": 2, "anchors": 2}
    options |= {"samples": 2, "max_tokens": 8, "steps": 2, "readme": readme, "output_dir": folder / "out"}
    command = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return study.main(command), command, folder


def test_every_row_has_every_measure_and_a_true_gain(run):
    results, _, folder = run
    assert len(results["rows"]) == 5
    assert {name for row in results["rows"] for name in row} == {*study.MEASURES, study.TRUE_GAIN}
    assert len({row[study.TRUE_GAIN] for row in results["rows"]}) == 5
    assert json.loads((folder / "out" / "results.json").read_text())["measures"].keys() == study.MEASURES.keys()


def test_the_table_stands_between_the_documents_marks(run):
    text = (run[2] / "README.md").read_text()
    assert text.startswith(f"# Study\n\n{study.BEGIN}\n5 rows; student transformers:tiny, answers by rulebook")
    assert text.endswith(f"{study.END}\n\nKept.\n")
    assert "old" not in text
    assert text.count("_reward` | 5 | ") == 4


def test_a_second_run_measures_only_what_is_new(run):
    results, command, folder = run
    costs = (folder / "out" / "costs.json").read_text()
    again = study.main(command)
    assert again["rows"] == results["rows"]
    assert (folder / "out" / "costs.json").read_text() == costs


def test_correlations_are_of_ranks_and_leave_out_rows_of_which_nothing_is_known():
    rows = [{name: float(n) for name in study.MEASURES} | {study.TRUE_GAIN: float(n**3)} for n in range(12)]
    for row in rows:
        row["ifd"] = -row["ifd"]
    rows[0]["verified"] = float("nan")
    costs = {f"{name} 0": [6.0, 12] for name in ("ifd", "influence", "verified")}
    found = study.correlations(rows, costs)
    assert (found["influence"]["rank_correlation"], found["ifd"]["rank_correlation"]) == pytest.approx((1.0, -1.0))
    assert (found["verified"]["n"], found["loss"]["n"]) == (11, 12)
    assert found["learnability"]["cpu_seconds_per_row"] == 0.5
    assert "cpu_seconds_per_row" not in found["length"]
