"""Does the policy learn? On held-out seeds, against the uniform chooser, at equal calls, over five training seeds."""

import re
import statistics
from pathlib import Path

import pytest
import torch

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    Rulebook,
    load_seeds,
    seeds_to_dataset,
    split_seeds,
)

T_95 = 2.776  # Student's t for four degrees of freedom, two-sided 95 %.


def _train(seed, tmp_path):
    """Held-out rewards after 640 chains: 3,840 operations."""
    train, test = split_seeds(load_seeds())
    args = InstructionGenPPOConfig(
        output_dir=str(tmp_path),
        seed=seed,
        use_cpu=True,
        total_episodes=640,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
    )
    torch.manual_seed(seed)
    model, rules = OperationPolicy(OperationPolicyConfig()), Rulebook()
    trainer = InstructionGenPPOTrainer(
        model, args, rules, train_dataset=seeds_to_dataset(train), eval_dataset=seeds_to_dataset(test)
    )
    trainer.train()
    return trainer.evaluate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [_train(seed, tmp_path_factory.mktemp("run")) for seed in range(5)]


def _interval(values):
    half = T_95 * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def test_the_policy_beats_the_uniform_chooser_on_held_out_seeds(runs):
    lift, half = _interval([run["eval_lift"] for run in runs])
    assert lift - half > 0
    rate, half = _interval([run["eval_accept_rate"] - run["eval_random_accept_rate"] for run in runs])
    assert rate - half > 0


def test_the_readme_tells_the_numbers_of_this_very_experiment(runs):
    study = (Path(__file__).parent.parent / "recipes" / "operation_policy" / "README.md").read_text()
    readme = study.partition("## At quickstart scale")[2].partition("\n## ")[0]

    def told(chooser):
        return [
            float(number) for number in re.search(rf"\| {chooser}[^|]*\| ([\d.]+) \| ([\d.]+) \|", readme).groups()
        ]

    def mean(name):
        return statistics.mean(run[name] for run in runs)

    # Other processors round otherwise and may take another turn; a tenth is well inside the interval of the lift.
    assert told("uniform") == pytest.approx([mean("eval_random_reward"), mean("eval_random_accept_rate")], rel=0.1)
    assert told("policy") == pytest.approx([mean("eval_reward"), mean("eval_accept_rate")], rel=0.1)
    lift, half = re.search(r"at equal calls is ([\d.]+) ± ([\d.]+) per chain", readme).groups()
    assert _interval([run["eval_lift"] for run in runs]) == pytest.approx((float(lift), float(half)), rel=0.1, abs=0.1)
