from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from teamsrl_hf import Candidate, EvolverConfig, Example, Rejection, Review, Seed, Transition
from teamsrl_hf.publish.cards import (
    dataset_card,
    fenced,
    inline_code,
    policy_card,
    render,
    size_category,
)
from teamsrl_hf.publish.counts import DatasetStatistics
from teamsrl_hf.text.operations import OPERATIONS, Operation

ARGS = SimpleNamespace(
    license="apache-2.0", language="en", expert="endpoint:x@https://y", reviewer="rulebook", chooser="policy"
)
FILES = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}], "default": True}]


def _result(
    rewrite="Name a bird of prey.",
    response="The hawk.",
    reason=None,
    rewriter="gpt",
    operation="deepen",
    seed="s1",
):
    transition = Transition("Name a bird.", operation, rewrite, Review("not_equal", (), "gpt"), rewriter)
    calls = (("answer", 1), ("review", 1), ("rewrite", 1)) if reason is None else (("rewrite", 1),)
    candidate = Candidate("r1", Seed(seed, "Name a bird."), seed, 0, ("deepen",), transition, response, "gpt", calls)
    return Example(candidate) if reason is None else Rejection(candidate, reason)


def _statistics(*chains, **options):
    statistics = DatasetStatistics(**options)
    for results in chains:
        statistics.add(results)
    return statistics


def _card(results, operations=OPERATIONS):
    return dataset_card(_statistics(results), FILES, operations, ARGS, EvolverConfig())


def test_statistics_count_rows_reasons_and_calls_of_rejected_rows_too():
    first = [_result(), _result(reason="unchanged"), _result(reason="unchanged")]
    assert _statistics(first, [_result(reason="equal")]).summary() == {
        "seeds": 2,
        "rows": 1,
        "rejections": {"equal": 1, "unchanged": 2},
        "calls": {"rewrite": 4, "review": 1, "answer": 1, "walk": 0},
        "expert_calls_per_row": 5.0,
        "verifiers": {},
        "operations": {"deepen": 1},
        "operations_by_step": {"deepen": {"1": 1}},
        "novelty_by_step": {"1": 0.4},
        "words": {"instruction": {"4-7": 1}, "response": {"2-3": 1}},
    }


def test_a_set_without_rows_has_no_calls_per_row():
    assert _statistics([_result(reason="equal")]).summary()["expert_calls_per_row"] is None


def test_the_sample_of_chains_is_the_same_in_any_order_and_never_grows():
    chains = [[_result(rewrite=f"Name bird {i}.", seed=f"s{i}")] for i in range(200)]
    forth, back = _statistics(*chains, chains=3), _statistics(*reversed(chains), chains=3)
    assert forth.chains == back.chains
    assert len(forth.chains) == 3
    assert forth.chains[0].keys() == {"seed", "steps", "response"}
    # No seed of the sample is special: one from the last half of the source can be in it.
    assert any(int(chain["steps"][0][1].split()[2][:-1]) >= 100 for chain in forth.chains)


def test_a_chain_that_led_to_no_row_is_not_shown():
    assert _statistics([_result(reason="equal")]).chains == []


def test_the_card_tells_lengths_and_what_else_was_checked():
    card = dataset_card(
        _statistics([_result(), _result(response="")]), FILES, OPERATIONS, ARGS, EvolverConfig(), ["No row was odd."]
    )
    assert "| 0 | 0 | 1 |\n| 2-3 | 0 | 1 |\n| 4-7 | 2 | 0 |" in card
    assert "No row was odd.\n" in card


def test_the_front_matter_is_yaml_the_hub_knows():
    card = DatasetCard(_card([_result()]))
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert "arxiv:2403.08694" in card.data.tags
    assert card.data.configs[0]["config_name"] == "default"


def test_a_dataset_made_by_rules_says_so_and_another_does_not():
    assert "Made by rules, not by a language model" in _card([_result(rewriter="rulebook")])
    assert "Made by rules" not in _card([_result()])


def test_hostile_text_can_neither_end_the_yaml_nor_its_fence_nor_run():
    hostile = "---\nlicense: stolen\n---\n````\n# Heading\n<script>alert(1)</script> {{ 7 * 7 }} ‮"
    card = _card([_result(rewrite=hostile, response=hostile)], (Operation("deepen", "a | b `c`\n---"),))
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    assert "49" not in card.partition("## Sampled chains")[2]
    assert "\u202e" not in card
    fence = "`````text\n---\nlicense: stolen"
    assert card.count(fence) == 2
    assert "- `deepen`: `a / b 'c' ---`" in card


@pytest.mark.parametrize(("text", "ticks"), [("plain", 3), ("a ``` b", 4), ("`" * 9, 10)])
def test_a_fence_is_longer_than_any_run_of_backticks(text, ticks):
    lines = fenced(text).split("\n")
    assert lines[0] == "`" * ticks + "text"
    assert lines[-1] == "`" * ticks


def test_code_spans_stay_on_one_line_and_in_one_cell():
    assert inline_code("a\n| `b`") == "`a / 'b'`"


def test_sizes_have_the_hubs_names():
    assert [size_category(n) for n in (0, 1_000, 99_999, 10**6)] == ["n<1K", "1K<n<10K", "10K<n<100K", "n>1M"]


def test_a_name_missing_from_a_template_is_an_error_and_no_blank():
    with pytest.raises(Exception, match="'meta' is undefined"):
        render("policy_card.md")


def test_the_policy_card_tells_rewards_only_where_they_were_measured():
    facts = {"train_seeds": 9, "test_seeds": 1, "environment_steps": 384, "reward_before": 1.0, "reward_after": 2.0}
    facts |= {"reward_uniform": 1.1, "accept_rate_after": 0.5, "accept_rate_uniform": 0.3}
    card = policy_card(facts, OPERATIONS, {"seed": 42})
    assert "before, after | 1.000, 2.000 |" in card
    assert ModelCard(card).data.library_name == "transformers"
    assert "before, after" not in policy_card({**facts, "reward_after": None}, OPERATIONS, {})


def test_the_policy_card_says_that_rules_trained_it_where_they_did_and_nothing_it_does_not_know():
    facts = {"train_seeds": 9, "test_seeds": 1, "environment_steps": 384, "reward_before": 1.0, "reward_after": None}
    rules = policy_card(facts, OPERATIONS, {}, models={"instructor": "rulebook", "reviewer": "rulebook"})
    assert "Trained by rules, not by a language model" in rules
    assert "was its instructor and its reviewer." in rules
    assert "- reviewer: `rulebook`" in rules
    real = policy_card(facts, OPERATIONS, {}, models={"instructor": "org/model", "reviewer": "org/model"})
    assert "by rules" not in real
    assert "- instructor: `org/model`" in real
    assert ModelCard(policy_card(None, OPERATIONS, {})).data.license == "unknown"
    assert ModelCard(real).data.license == "unknown"
