"""Planted tasks of the study: what they pay, and that the policy learns what a bandit can't."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from recipes.operation_policy import study  # noqa: E402
from teamsrl_hf import Seed, Trajectory, Transition  # noqa: E402
from teamsrl_hf.evaluation import planted  # noqa: E402
from teamsrl_hf.evaluation.intervals import mean_interval  # noqa: E402
from teamsrl_hf.types import Review, Verdict  # noqa: E402


def _chain(text, *operations):
    equal = Review(Verdict.EQUAL)
    return Trajectory(Seed("s", text), tuple(Transition(text, name, text, equal, "m") for name in operations))


def test_the_delayed_task_pays_an_operation_after_the_one_that_pays_nothing():
    chains = [_chain("Name a bird.", "deepen", "breadth", "deepen", "concretize", "deepen")]
    assert planted.delayed(chains) == [[0.0, 0.0, 1.0, 0.3, 1.0]]


def test_the_contextual_task_pays_two_operations_in_turn_and_the_text_says_which_is_first():
    asked, told = "Why is the sky blue?", "Name a bird."
    turns = ("deepen", "concretize", "concretize", "breadth")
    assert planted.contextual([_chain(asked, *turns), _chain(told, *turns)]) == [[1, 1, 0, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize("task", ["delayed", "contextual"])
def test_the_policy_learns_what_no_bandit_can(task, monkeypatch):
    monkeypatch.setattr(study, "PLANTED", ("linucb", "linucb_form", "policy"))
    monkeypatch.setattr(study, "PLANTED_EPISODES", 400)
    train, held_out = study.held_out_sets(5, 0.24)
    told = study.on_planted_task(study.Job(task, 400, seed=0), train, held_out)
    earned = {outcome["arm"]: outcome["reward"] for outcome in told}
    assert earned["policy"] > 4.5  # The most is 5, since the first step of a delayed chain pays nothing, and 6.
    assert earned["policy"] > max(earned["linucb"], earned["linucb_form"]) + 0.5


def test_the_committed_study_shows_the_policy_ahead_of_the_bandits_on_both_tasks():
    told = json.loads((ROOT / "recipes" / "operation_policy" / "results.json").read_text())["planted"]
    for task in planted.TASKS:
        earned = {arm: [r["reward"] for r in told if (r["arm"], r["set"]) == (arm, task)] for arm in study.PLANTED}
        assert len(earned["policy"]) >= 5
        for bandit in ("linucb", "linucb_form"):
            mean, half = mean_interval([ours - theirs for ours, theirs in zip(earned["policy"], earned[bandit])])
            assert mean - half > 0, (task, bandit)
