"""The quickstart with SmolLM2-135M-Instruct in this process, some five minutes on two quiet cores.

`pytest -m real` runs the commands one by one instead, with all methods, the audit and the comparison.
"""

import asyncio
import json

import pytest
from datasets import load_dataset
from real_model import smollm2

from teamsrl_hf import Request, Sampling, make_generator
from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.runs import read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def tell(capsys, what, summary):
    """Rows, and rejections by reason, for whoever reads the log of CI."""
    reasons = ", ".join(f"{name} {count}" for name, count in summary["rejections"].items())
    with capsys.disabled():
        print(f"\n{what}: {summary['rows']} rows; rejected: {reasons}", flush=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of a quickstart with the real model on 20 of the built-in seeds."""
    folder = tmp_path_factory.mktemp("real") / "out"
    words = ["quickstart", "--model", json.dumps(smollm2()), "--max_seeds", "20", "--output_dir", str(folder)]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def summary(out):
    return read_run(out)["summary"]


def test_the_quickstart_trains_a_policy_on_96_operations_and_evolves_rows(summary, capsys):
    tell(capsys, "quickstart, stepwise", summary["dataset"])
    assert summary["policy"]["environment_steps"] == 96
    assert summary["policy"]["accept_rate_uniform"] > 0
    assert summary["dataset"]["rows"] >= 8
    assert summary["reviewer"] > 0.6
    assert set(summary["calls"]) == {"instructor", "expert", "reviewer"}


def test_rows_keep_their_seed_and_no_row_shows_a_marker(out, summary):
    rows = [row for split in load_dataset(str(out / "dataset")).values() for row in split]
    assert len(rows) == summary["dataset"]["rows"]
    texts = [row[column][0]["content"] for row in rows for column in ("prompt", "completion")]
    assert [text for text in texts if not text.strip() or "<|im" in text] == []


def test_fine_tuning_the_same_model_lowers_its_loss(summary):
    assert summary["model"]["loss_after"] < summary["model"]["loss_before"] < 4
    assert summary["model"]["trainable_parameters"] < 0.05 * summary["model"]["parameters"]


def test_the_merged_model_answers_in_its_template(out, tmp_path):
    merged = tmp_path / "merged"
    load_recipe("merge_adapter").main(["--adapter", str(out / "model"), "--output_dir", str(merged)])
    question = {"role": "user", "content": "What is the capital of France? Answer with its name alone."}
    request = Request("expert", (question,), Sampling(temperature=0.0, top_p=1.0, max_tokens=64))
    answer = asyncio.run(make_generator(f"transformers:{merged}")(request))
    assert (answer.error, answer.finish_reason) == (None, "stop")
    assert "Paris" in answer.text
    assert "<|im" not in answer.text
