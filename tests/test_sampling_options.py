"""Sampling options of `train-policy` and `compare` reach the models, and are checked before any call."""

import json

import pytest
from endpoint_server import EndpointServer, rulebook_answer

from teamsrl_hf.cli import main

OPTIONS = ["--temperature", "0.3", "--top_p", "0.8", "--max_tokens", "77", "--prompts", "large"]
REVIEWER = ["--reviewer", "rulebook"]
ASKED = {(0.3, 0.8, 77)}


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    rows = [{"instruction": f"Explain to a beginner how bridge number {i} carries its load."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Noting:
    """The rulebook's answers; remembers the sampling parameters of each request."""

    def __init__(self):
        self.asked = set()

    def __call__(self, payload):
        self.asked.add((payload["temperature"], payload["top_p"], payload["max_tokens"]))
        return rulebook_answer(payload)


@pytest.mark.parametrize("chooser", ["policy", "linucb"])
def test_the_instructor_of_a_training_is_asked_with_the_sampling_that_was_given(chooser, seeds, tmp_path):
    sizes = ["--max_steps", "16", "--per_device_train_batch_size", "1", "--use_cpu", "true", "--report_to", "none"]
    command = ["train-policy", "--chooser", chooser, "--seeds", str(seeds), "--output_dir", str(tmp_path / "out")]
    with EndpointServer(answer := Noting()) as server:
        assert main([*command, *sizes, *OPTIONS, "--instructor", f"endpoint:m@{server.url}", *REVIEWER]) == 0
    assert answer.asked == ASKED


def test_expert_and_instructor_of_a_comparison_are_asked_with_the_sampling_that_was_given(seeds, tmp_path):
    sizes = ["--budget", "50", "--repetitions", "2", "--rollouts", "1", "--test_size", "0.5"]
    command = [
        "compare",
        "--methods",
        "linucb",
        "policy",
        "--seeds",
        str(seeds),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    expert, instructor = Noting(), Noting()
    with EndpointServer(expert) as paid, EndpointServer(instructor) as free:
        models = ["--expert", f"endpoint:m@{paid.url}", "--instructor", f"endpoint:m@{free.url}", *REVIEWER]
        assert main([*command, *sizes, *OPTIONS, *models]) == 0
    assert (expert.asked, instructor.asked) == (ASKED, ASKED)


@pytest.mark.parametrize("command", ["train-policy", "compare"])
def test_sampling_that_no_model_takes_is_refused_in_one_line(command, tmp_path, capsys):
    models = ["--instructor", "rulebook", *REVIEWER]
    assert main([command, "--max_tokens", "0", *models, "--output_dir", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: max_tokens must be a whole number of at least 1, not 0.")
    assert not (tmp_path / "out").exists()
