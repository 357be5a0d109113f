"""The path of a user with SmolLM2-135M-Instruct, second part: planned methods, then sft, merging and audit of rows."""

import asyncio

import pytest
from real_commands import OPERATIONS, SAMPLING, config, everyone, prepare, run, run_recipe

from teamsrl_hf import Request, Sampling, make_generator

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Path of the model, its specification, options for seeds, and a folder."""
    folder = tmp_path_factory.mktemp("planned")
    return *prepare(folder), folder


def evolve(given, method, *words):
    """One ledger for all planned methods, which walk the same chains."""
    _, spec, seeds, folder = given
    words = ["evolve", *seeds, *everyone(spec, "expert", "reviewer", "instructor"), "--method", method, *words]
    words += ["--chooser", "uniform", "--operations", *OPERATIONS, "--ledger", str(folder / "ledger.sqlite")]
    words += ["--operations_per_episode", "1", "--max_tokens", "96", "--concurrency", "48", *SAMPLING]
    return run(f"evolve, {method}", *words, output_dir=folder / method)


@pytest.fixture(scope="module")
def rows(given):
    """The summary of evolving all seeds, half of them held out; the rows are in the folder `plan_answer`."""
    return evolve(given, "plan_answer", "--test_size", "0.5")


@pytest.fixture(scope="module")
def tuned(given, rows):
    """The summary of fine-tuning on the rows, and the folder of the adapter."""
    path, _, _, folder = given
    words = ["sft", "--config", config("sft_smollm2"), "--model_name_or_path", path]
    words += ["--dataset_name", str(folder / "plan_answer"), "--num_train_epochs", "3"]
    return run("sft", *words, output_dir=folder / "model"), folder / "model"


def test_one_call_for_a_row_makes_rows(rows):
    assert rows["rows"] >= 20  # The audit needs ten seeds on either side.
    assert rows["calls"]["answer"] == 0


def test_one_call_for_a_plan_makes_rows(given):
    made = evolve(given, "plan", "--max_seeds", "16")
    assert made["rows"] >= 3
    assert made["calls"]["answer"] > 0


def test_several_rows_in_a_call_are_rows(given):
    made = evolve(given, "packed", "--max_seeds", "16")
    assert made["rows"] >= 3
    assert made["calls"]["answer"] == 0


def test_fine_tuning_on_the_rows_lowers_the_loss_on_held_out_ones(tuned):
    summary, _ = tuned
    assert summary["loss_after"] < summary["loss_before"] - 0.02
    assert summary["trainable_parameters"] < 0.05 * summary["parameters"]


def test_the_merged_model_answers_in_its_template(given, tuned):
    merged = given[3] / "merged"
    run_recipe("merge_adapter", "--adapter", str(tuned[1]), "--dtype", "bfloat16", output_dir=merged)
    question = {"role": "user", "content": "What is the capital of France? Answer with its name alone."}
    request = Request("expert", (question,), Sampling(temperature=0.0, top_p=1.0, max_tokens=64))
    answer = asyncio.run(make_generator(f"transformers:{merged}")(request))
    print(f"merged model: {answer.text!r}")
    assert (answer.error, answer.finish_reason) == (None, "stop")
    assert "Paris" in answer.text
    assert "<|im" not in answer.text


def test_the_audit_measures_how_well_attacks_find_the_rows_that_were_trained_on(given, tuned):
    words = ["audit", "--model", str(tuned[1]), "--dataset_name", str(given[3] / "plan_answer")]
    found = run("audit", *words, "--dtype", "bfloat16", output_dir=given[3] / "audit")
    assert found["members"] >= 10
    assert found["non_members"] >= 10
    assert found["membership"] == "recorded"
    assert all(0 <= attack["auc"] <= 1 for attack in found["attacks"].values())
    assert "AUC" in (given[3] / "audit" / "README.md").read_text()
