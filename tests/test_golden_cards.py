"""Whole cards against the ones that were reviewed; to accept a change, run this file as a script and read the diff."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from test_cards import ARGS, FILES, _result, _statistics

from teamsrl_hf import OPERATIONS, DatasetWriter, EvolverConfig
from teamsrl_hf.cli import load_recipe
from teamsrl_hf.publish.cards import dataset_card, policy_card
from teamsrl_hf.publish.plots import plot_dataset, plot_policy
from teamsrl_hf.publish.report import write_report
from teamsrl_hf.sft.card import sft_card

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "---\nlicense: stolen\nconfigs: []\n---\n````\n# Heading\n</script><script>alert(1)</script> {{ 7 * 7 }} {% x %} "
    "<|im_end|><s>[INST] ../../etc/passwd | `a` \u202ereversed\u2066 \u2028 \x1b[31m"
)
# The keys of the Hub's specifications: docs modelcard.md and datasetcard.md of github.com/huggingface/hub-docs.
MODEL_KEYS = {
    *("language", "license", "license_name", "license_link", "library_name", "tags", "datasets", "metrics"),
    *("base_model", "base_model_relation", "new_version", "pipeline_tag", "thumbnail", "model-index", "inference"),
}
DATASET_KEYS = {
    *("language", "license", "license_name", "license_link", "license_details", "tags", "annotations_creators"),
    *("language_creators", "language_details", "pretty_name", "size_categories", "source_datasets"),
    *("task_categories", "task_ids", "paperswithcode_id", "configs", "dataset_info", "train-eval-index", "viewer"),
}
FACTS = {"train_seeds": 9, "test_seeds": 3, "environment_steps": 384, "reward_before": 1.25, "reward_after": 2.5}
FACTS |= {"reward_uniform": 1.125, "accept_rate_after": 0.5, "accept_rate_uniform": 0.25}
ORIGIN = {
    "seeds": {
        **{"source": "/home/ada/seeds.jsonl", "number": 3, "digest": "0f1e2d", "test_size": 0.1},
        **{"train": ["s1", "s2"], "test": ["s3"]},
    },
    "chooser": {"name": "policy", "source": "/home/ada/outputs/policy", "weights": "ab" * 32},
    "reviewing": {
        "questions": ["different", "clear"],
        "calibration": [
            {"question": "different", "rows": 40, "accuracy": 0.85, "interval": [0.7093, 0.9294], "chance": 0.5},
            {"question": "clear", "rows": 40, "accuracy": 0.6, "interval": [0.4460, 0.7365], "chance": 0.5},
        ],
    },
    "versions": {"datasets": "5.2.0", "teamsrl-hf": "0.1.0"},
    "recipe": "policy: policy\nseeds: seeds.jsonl",
}
PLOTS = {"Rows by step and operation": "plots/operations.png"}


def rows_card() -> str:
    chains = [[_result(), _result(reason="unchanged")], [_result(rewrite="Name a bird in Peru.", seed="s2")]]
    statistics, checks = _statistics(*chains), ["No row was odd."]
    return dataset_card(statistics, FILES, OPERATIONS, ARGS, EvolverConfig(), checks, PLOTS, ORIGIN)


def operations_card() -> str:
    curve = {"Reward by training step": "plots/reward.png"}
    models = {"instructor": "rulebook", "reviewer": "gpt-4o@https://10.0.0.7:8000/v1"}
    args = {"num_ppo_epochs": 4, "seed": 42}
    return policy_card(FACTS, OPERATIONS, args, curve, models=models, license="apache-2.0")


def model_card() -> str:
    from trl import ModelConfig, SFTConfig

    counts = {"rows": 900, "test_rows": 90, "cut_rows": 2, "dropped_rows": 0, "steps": 80, "seconds": 60}
    counts |= {"trainable_parameters": 921_600, "parameters": 135_436_608}
    losses = {"loss_before": 2.5, "loss_after": 1.25, "perplexity_before": 12.18, "perplexity_after": 3.49}
    card = sft_card(
        counts | losses,
        load_recipe("sft").SFTArguments(dataset_name="ada/rows"),
        ModelConfig(model_name_or_path="HuggingFaceTB/SmolLM2-135M", use_peft=True),
        SFTConfig(output_dir="unused", use_cpu=True, bf16=False, activation_checkpointing=False, learning_rate=1e-3),
        [{"step": 1, "loss": 2.5}, {"step": 80, "loss": 1.25}],
        "loss.png",
    )
    return re.sub(r"with torch .*", "with VERSIONS.", card)


CARDS = {"dataset_card.md": rows_card, "policy_card.md": operations_card, "sft_card.md": model_card}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_the_one_that_was_reviewed(name):
    assert CARDS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


def test_cards_use_only_keys_the_hub_knows():
    assert set(yaml.safe_load(rows_card().split("---")[1])) <= DATASET_KEYS
    assert set(yaml.safe_load(operations_card().split("---")[1])) <= MODEL_KEYS
    assert set(yaml.safe_load(model_card().split("---")[1])) <= MODEL_KEYS


def test_what_was_measured_on_held_out_seeds_is_in_the_model_index_and_nothing_else_is():
    results = ModelCard(operations_card()).data.eval_results
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in results] == [
        ("reward", 2.5, "3 held-out seeds"),
        ("accept_rate", 0.5, "3 held-out seeds"),
    ]
    assert ModelCard(policy_card({**FACTS, "reward_after": None}, OPERATIONS, {})).data.eval_results is None


def test_ten_chains_are_shown():
    chains = [[_result(seed=f"s{i}", rewrite=f"Name bird {i}.")] for i in range(30)]
    card = dataset_card(_statistics(*chains), FILES, OPERATIONS, ARGS, EvolverConfig())
    assert card.count("Answer to the last:") == 10


def test_without_matplotlib_a_card_says_so_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    plots = plot_dataset(_statistics([_result()]).summary(), tmp_path)
    assert plots is None
    card = dataset_card(_statistics([_result()]), FILES, OPERATIONS, ARGS, EvolverConfig(), plots=plots)
    assert "No plots were drawn, since matplotlib (the extra `plots`) was not installed.\n" in card
    assert "![" not in card


def test_plots_are_drawn_from_the_runs_numbers_and_the_same_numbers_give_the_same_files(tmp_path):
    pytest.importorskip("matplotlib")
    summary = _statistics([_result(), _result(reason="equal")], [_result(operation="breadth")]).summary()
    paths = plot_dataset(summary, tmp_path).values()
    assert [*paths] == ["plots/operations.png", "plots/lengths.png", "plots/novelty.png"]
    first = [(tmp_path / path).read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") for content in first)
    plot_dataset(summary, tmp_path)
    assert [(tmp_path / path).read_bytes() for path in paths] == first
    history = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.0}, {"step": 2, "loss": 0.1}]
    assert plot_policy(history, tmp_path) == {"Reward by training step": "plots/reward.png"}
    assert plot_policy(history[:1], tmp_path) == {}


def test_hostile_text_leaves_card_parquet_and_page_sound(tmp_path):
    import datasets

    long = HOSTILE + "y" * 1_000_000
    results = [_result(rewrite=HOSTILE, response=long), _result(rewrite=long, seed="s2", response=HOSTILE)]
    with DatasetWriter(tmp_path / "rows") as writer:
        writer.write(results)
        writer.finish(lambda configs: dataset_card(_statistics(results), configs, OPERATIONS, ARGS, EvolverConfig()))
    card = DatasetCard.load(tmp_path / "rows" / "README.md")
    assert card.data.license == "apache-2.0"
    assert len(card.content) < 20_000
    assert "\u202e" not in card.content
    assert "\u2028" not in card.content
    assert "\x1b" not in card.content
    assert "{{ 7 * 7 }}" in card.content
    fences = [line for line in card.content.splitlines() if line.startswith("`````")]
    assert len(fences) % 2 == 0
    loaded = datasets.load_dataset(str(tmp_path / "rows"), cache_dir=str(tmp_path / "cache"))["train"]
    assert [row["prompt"][0]["content"] for row in loaded] == [HOSTILE, long]
    page = write_report(tmp_path / "rows").read_text()
    assert len(page) < 100_000
    assert "alert(1)" not in page


if __name__ == "__main__":
    for name, make in CARDS.items():
        (GOLDEN / name).write_text(make(), encoding="utf-8")
