"""Sampling options of commands and of models' specifications reach the models, and are checked before any call."""

import asyncio
import json

import pytest
import yaml
from endpoint_server import EndpointServer, rulebook_answer

from teamsrl_hf import Completion, Ledger, Request, Sampling, ScriptedGenerator
from teamsrl_hf.cli import main
from teamsrl_hf.errors import Stopped
from teamsrl_hf.evolve.methods import Counted
from teamsrl_hf.models.base import Sampled
from teamsrl_hf.models.budget import Budget
from teamsrl_hf.types import Finish

SAMPLING = ["--temperature", "0.3", "--top_p", "0.8", "--max_tokens", "77", "--sampling_seed", "5"]
OPTIONS = [*SAMPLING, "--prompts", "large"]
REVIEWER = ["--reviewer", "rulebook"]
ASKED = {(0.3, 0.8, 77, 5)}


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
        names = "temperature", "top_p", "max_tokens", "seed"
        self.asked.add(tuple(payload.get(name) for name in names))
        return rulebook_answer(payload)


@pytest.mark.parametrize("chooser", ["policy", "linucb"])
def test_the_instructor_of_a_training_is_asked_with_the_sampling_that_was_given(chooser, seeds, tmp_path):
    sizes = ["--max_steps", "32", "--per_device_train_batch_size", "1", "--use_cpu", "true", "--report_to", "none"]
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
    # One seed more for each repetition: with the same one, they would be repetitions in name alone.
    both = {(0.3, 0.8, 77, 5), (0.3, 0.8, 77, 6)}
    assert (expert.asked, instructor.asked) == (both, both)


def evolve(seeds, folder, *options):
    words = ["--seeds", str(seeds), "--max_seeds", "4", "--chooser", "uniform", "--operations_per_episode", "2"]
    return main(["evolve", *words, *options, "--output_dir", str(folder)])


def test_the_expert_of_an_evolution_gets_the_seed_that_was_given_and_without_one_none_is_sent(seeds, tmp_path):
    given, left_out = Noting(), Noting()
    with EndpointServer(given) as server:
        assert evolve(seeds, tmp_path / "a", *OPTIONS, "--expert", f"endpoint:m@{server.url}", *REVIEWER) == 0
    with EndpointServer(left_out) as server:
        words = ["--prompts", "large", "--expert", f"endpoint:m@{server.url}"]
        assert evolve(seeds, tmp_path / "b", *words, *REVIEWER) == 0
    assert (given.asked, left_out.asked) == (ASKED, {(0.7, 0.95, 2048, None)})


def model(url, **own):
    return json.dumps({"endpoint": f"m@{url}", **own})


OWN = {"temperature": 0.1, "top_p": 0.5, "max_tokens": 999, "seed": 3}


def test_what_a_model_s_specification_says_of_sampling_stands_for_every_request_to_that_model(seeds, tmp_path):
    expert, reviewer = Noting(), Noting()
    with EndpointServer(expert) as paid, EndpointServer(reviewer) as free:
        models = ["--expert", model(paid.url, seed=9), "--reviewer", model(free.url, **OWN)]
        assert evolve(seeds, tmp_path / "out", *OPTIONS, *models) == 0
    assert (expert.asked, reviewer.asked) == ({(0.3, 0.8, 77, 9)}, {(0.1, 0.5, 999, 3)})
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- reviewer: `endpoint:m, temperature: 0.1, top_p: 0.5, max_tokens: 999, seed: 3`" in card
    recipe = yaml.safe_load(card.split("```text\n")[1].split("```")[0])
    assert recipe["reviewer"] == {"endpoint": "m", **OWN}
    assert recipe["sampling_seed"] == 5


@pytest.mark.parametrize("command", ["calibrate", "review"])
def test_a_reviewer_alone_takes_sampling_in_its_specification(command, tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(
            {
                "id": "1",
                "operation": "deepen",
                "instruction": "Explain why bridges have joints.",
                "raw": "Explain why bridges have joints and what happens to the joints in a cold winter.",
                "rewrite": "Explain why bridges have joints and what happens to the joints in a cold winter.",
                "label": "good",
                "finish_reason": "stop",
            }
        )
    )
    rows = [str(tmp_path / "rows.jsonl")] if command == "review" else []
    with EndpointServer(answer := Noting()) as server:
        words = [*rows, "--reviewer", model(server.url, **OWN), "--output", str(tmp_path / "out.json")]
        assert main([command, *words]) == 0
    assert answer.asked == {(0.1, 0.5, 999, 3)}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"temperature": -1}, "temperature must be a number of at least 0, not -1."),
        ({"max_tokens": 2.5}, "max_tokens of endpoint must be a whole number, not 2.5."),
        ({"seed": "x"}, "seed of endpoint must be a whole number, not 'x'."),
    ],
)
def test_sampling_in_a_specification_is_checked_before_any_call(own, message, tmp_path, capsys):
    words = ["--reviewer", model("http://127.0.0.1:9/v1", **own), "--output", str(tmp_path / "out.json")]
    assert main(["calibrate", *words]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {message}")


def counting(answers):
    """A model that answers in turn, and the limits on tokens that it was asked with."""
    said, limits = iter(answers), []

    def answer(request):
        limits.append(request.sampling.max_tokens)
        return next(said)

    return ScriptedGenerator(answer), limits


def test_an_answer_that_a_model_s_own_limit_cut_is_asked_for_with_twice_that_limit():
    cut = Completion("Half of", "scripted", finish_reason=Finish.LENGTH)
    scripted, limits = counting([cut, "All of it."])
    request = Request("expert", ({"role": "user", "content": "Why?"},), Sampling(max_tokens=64))
    answer = asyncio.run(Counted(Sampled(scripted, {"max_tokens": 100}), retry_cut=True)(request))
    assert (answer.text, limits) == ("All of it.", [100, 200])


def test_a_ledger_keeps_answers_to_different_seeds_apart_and_reserves_the_model_s_own_limit(tmp_path):
    request = Request("expert", ({"role": "user", "content": "Why?"},), Sampling(max_tokens=64))
    scripted, limits = counting(["One.", "Two."])
    scripted.immediate = False

    async def ask(ledger, *own):
        return [(await ledger.record(Sampled(scripted, each))(request)).text for each in own]

    with Ledger(tmp_path / "a.sqlite") as ledger:
        assert asyncio.run(ask(ledger, {"seed": 1}, {"seed": 2}, {"seed": 1})) == ["One.", "Two.", "One."]
    with Ledger(tmp_path / "b.sqlite", budget=Budget(tokens=200)) as ledger, pytest.raises(Stopped):
        asyncio.run(ask(ledger, {"max_tokens": 500}))
    assert limits == [64, 64]


@pytest.mark.parametrize("command", ["train-policy", "compare"])
def test_sampling_that_no_model_takes_is_refused_in_one_line(command, tmp_path, capsys):
    models = ["--instructor", "rulebook", *REVIEWER]
    assert main([command, "--max_tokens", "0", *models, "--output_dir", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: max_tokens must be a whole number of at least 1, not 0.")
    assert not (tmp_path / "out").exists()
