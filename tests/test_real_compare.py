"""The path of a user with SmolLM2-135M-Instruct, third part: compare all five methods at equal paid calls."""

import json

import pytest
from real_commands import SAMPLING, everyone, prepare, run

from teamsrl_hf.evaluation.comparison import values_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]
METHODS = ("uniform", "uniform_plan", "uniform_plan_answer", "uniform_packed", "evol_instruct")


def test_all_five_methods_are_compared(tmp_path):
    _, spec, seeds = prepare(tmp_path)
    words = ["compare", *seeds, "--test_size", "0.5", *everyone(spec, "expert", "instructor", "reviewer")]
    words += ["--methods", *METHODS, "--budget", "16", "--repetitions", "2", "--operations_per_episode", "1"]
    results = run("compare", *words, "--max_tokens", "96", *SAMPLING, output_dir=tmp_path / "out")
    for record in results["records"]:
        reasons = ", ".join(f"{why} {count}" for why, count in record["rejections"].items())
        print(f"compare, {record['method']}: {record['rows']} rows; rejected: {reasons or 'none'}")
    told = [(record["method"], record["repetition"]) for record in results["records"]]
    assert told == [(method, number) for method in METHODS for number in (0, 1)]
    assert all(0 < record["paid"] <= 16 for record in results["records"])
    assert all(sum(values_of(results, method, "rows")) > 0 for method in METHODS)
    table = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| {name} |" in table for name in ("uniform", "Evol-Instruct", "uniform, several rows per call"))
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
