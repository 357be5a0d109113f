"""The path of a user with SmolLM2-135M-Instruct, first part: train-policy, then evolve with the policy.

The other parts are in test_real_planned.py (planned methods, sft, audit) and test_real_compare.py; parts run at the
same time. `pytest -m real -rP` prints what each command came to, rejections by reason.
"""

import pytest
from datasets import load_dataset
from real_commands import OPERATIONS, SAMPLING, config, everyone, prepare, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Path of the model, its specification, options for seeds, and a folder."""
    folder = tmp_path_factory.mktemp("path")
    return *prepare(folder), folder


@pytest.fixture(scope="module")
def policy(given):
    """The summary of training on 96 operations, and its folder."""
    _, spec, seeds, folder = given
    words = ["train-policy", "--config", config("train_policy_smollm2"), *seeds, "--test_size", "0.2"]
    words += [*everyone(spec, "instructor", "reviewer"), "--operations", *OPERATIONS, "--max_tokens", "96"]
    return run("train-policy", *words, output_dir=folder / "policy"), folder / "policy"


def evolve(given, method, *words):
    _, spec, seeds, folder = given
    words = ["evolve", *seeds, *everyone(spec, "expert", "reviewer"), "--method", method, *words]
    words += ["--operations_per_episode", "2", "--max_tokens", "128", "--concurrency", "32", *SAMPLING]
    return run(f"evolve, {method}", *words, output_dir=folder / method)


def test_a_policy_is_trained_on_96_operations_that_a_real_model_carries_out(policy):
    summary, _ = policy
    assert summary["environment_steps"] == 96
    assert summary["accept_rate_after"] > 0
    assert summary["reward_after"] > 0


def test_stepwise_evolution_with_the_policy_makes_rows_without_a_trace_of_the_chat_template(given, policy):
    words = "--chooser", "policy", "--policy", str(policy[1]), "--prompts", "tiny", "--max_seeds", "16"
    made = evolve(given, "stepwise", *words)
    assert made["rows"] >= 3
    assert set(made["operations"]) <= set(OPERATIONS)
    rows = [row for split in load_dataset(str(given[3] / "stepwise")).values() for row in split]
    texts = [row[column][0]["content"] for row in rows for column in ("prompt", "completion")]
    assert len(texts) == 2 * made["rows"]
    assert [text for text in texts if not text.strip() or "<|im" in text] == []


def test_evol_instruct_makes_rows(given):
    made = evolve(given, "evol_instruct", "--chooser", "uniform", "--operations", *OPERATIONS, "--max_seeds", "16")
    assert made["rows"] >= 2
    assert made["calls"]["review"] > 0
