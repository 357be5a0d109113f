import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from teamsrl_hf.privacy import auc, audit, blind_scores, membership_scores, tpr_at_fpr

WORDS = [f"word{i}" for i in range(60)]


def make_texts(count: int, seed: int, words=WORDS) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(6, 14))) for _ in range(count)]


MEMBERS, NON_MEMBERS = make_texts(40, 1), make_texts(40, 2)


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def base():
    return tiny_llama().eval()


@pytest.fixture(scope="module")
def trained(tokenizer):
    """A LoRA adapter on the same base that has learned MEMBERS by heart."""
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = [torch.tensor(row) for row in tokenizer(MEMBERS)["input_ids"]]
    inputs = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=inputs, attention_mask=(labels >= 0).long(), labels=labels).loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("members", "non_members", "expected"),
    [
        ([2, 3], [0, 1], 1.0),
        ([0, 1], [2, 3], 0.0),
        ([1, 1], [1, 1, 1], 0.5),
        ([3, 1], [2, 2, 0], 4 / 6),  # 3 beats all three, 1 beats one
        ([2], [2, 1, 3, 0], 2.5 / 4),  # a tie is half a win
    ],
)
def test_auc_is_the_share_of_pairs_won(members, non_members, expected):
    assert auc(members, non_members) == pytest.approx(expected)


def test_tpr_counts_members_above_what_the_allowed_non_members_reach():
    non_members = list(range(100))
    assert tpr_at_fpr([97.0, 97.5, 98.0, 200], non_members, fpr=0.01) == 0.25  # 99 may pass, 98 may not
    assert tpr_at_fpr([97.0, 97.5, 98.0, 200], non_members, fpr=0.02) == 0.75
    assert tpr_at_fpr([1.0], [1.0] * 100) == 0


def test_a_rate_too_small_for_the_sample_is_refused():
    with pytest.raises(ValueError, match="99 non-members cannot show a rate"):
        tpr_at_fpr([1.0], [0.0] * 99)


def test_a_model_that_learned_by_heart_is_found_out(trained, tokenizer):
    found = audit(trained, tokenizer, MEMBERS, NON_MEMBERS)
    assert found["attacks"]["reference"]["auc"] > 0.9
    assert found["attacks"]["reference"]["interval"][0] > 0.85
    assert sorted(found["attacks"]) == ["loss", "min_k", "min_k_plus_plus", "reference", "zlib"]
    assert all(attack["auc"] > 0.8 for attack in found["attacks"].values())
    assert found["split_ok"] is True
    # 40 non-members cannot show 1 %.
    assert "tpr_at_1_percent_fpr" not in found["attacks"]["loss"]


def test_an_untrained_model_gives_nothing_away(base, tokenizer):
    found = audit(base, tokenizer, MEMBERS, NON_MEMBERS)
    assert "reference" not in found["attacks"]
    for name in ("loss", "min_k", "min_k_plus_plus", "zlib"):
        low, high = found["attacks"][name]["interval"]
        assert low <= 0.5 <= high, name


def test_the_adapter_switched_off_is_the_base(trained, base, tokenizer):
    by_switch = membership_scores(trained, tokenizer, MEMBERS[:5])
    by_base = membership_scores(trained, tokenizer, MEMBERS[:5], reference=base)
    assert by_switch["reference"] == pytest.approx(by_base["reference"], abs=1e-5)
    assert trained.training is True
    # The adapter is back on.
    assert membership_scores(trained, tokenizer, MEMBERS[:5])["loss"] == pytest.approx(by_switch["loss"])


def test_scores_do_not_depend_on_the_batch_a_text_stands_in(trained, tokenizer):
    alone = membership_scores(trained, tokenizer, MEMBERS[:6], batch_size=1)
    together = membership_scores(trained, tokenizer, MEMBERS[:6], batch_size=6)
    for name, scores in alone.items():
        assert scores == pytest.approx(together[name], abs=1e-5), name


def test_loss_is_minus_the_loss_of_the_model_and_min_k_its_worst_fifth(base, tokenizer):
    scores = membership_scores(base, tokenizer, MEMBERS[:1])
    ids = tokenizer(MEMBERS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = base(ids, labels=ids)
    logprobs = output.logits[0, :-1].log_softmax(-1)[range(ids.shape[1] - 1), ids[0, 1:]]
    assert scores["loss"][0] == pytest.approx(-output.loss.item(), abs=1e-5)
    assert scores["min_k"][0] == pytest.approx(
        logprobs.sort().values[: (ids.shape[1] - 1) // 5].mean().item(), abs=1e-5
    )


def test_min_k_plus_plus_of_a_fair_and_a_sure_prediction_is_worked_by_hand():
    from teamsrl_hf.privacy import _score_row

    # p = (.8, .2): mean log p = .8 ln .8 + .2 ln .2, standard deviation = sqrt(.8 * .2) * ln 4.
    logits = torch.tensor([[0.8, 0.2]]).log()
    mean, deviation = 0.8 * np.log(0.8) + 0.2 * np.log(0.2), 0.4 * np.log(4)
    assert _score_row(logits, torch.tensor([0]))["min_k_plus_plus"] == pytest.approx((np.log(0.8) - mean) / deviation)
    assert _score_row(logits, torch.tensor([1]))["min_k_plus_plus"] == pytest.approx((np.log(0.2) - mean) / deviation)
    # All tokens equally likely: nothing to standardise by.
    assert _score_row(torch.zeros(1, 4), torch.tensor([2]))["min_k_plus_plus"] == pytest.approx(0, abs=1e-3)


def test_a_split_that_words_alone_betray_is_flagged(base, tokenizer):
    found = audit(base, tokenizer, make_texts(40, 3, WORDS[:35]), make_texts(40, 4, WORDS[25:]))
    assert found["split_ok"] is False
    assert found["blind"]["auc"] > 0.8


def test_blind_scores_come_from_folds_without_the_text():
    # Every text has one word of its own: whoever has seen it could tell, whoever has not cannot.
    members, non_members = ([f"{kind}{i} same words for all" for i in range(60)] for kind in "mn")
    inside, outside = blind_scores(members, non_members)
    assert inside.shape == outside.shape == (60,)
    assert auc(inside, outside) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "Got no texts"), (["word1 word2", "word1"], "Text 1 has fewer than two tokens")],
)
def test_texts_without_a_prediction_are_refused(base, tokenizer, texts, message):
    with pytest.raises(ValueError, match=message):
        membership_scores(base, tokenizer, texts)


def test_a_blind_check_of_a_handful_is_refused():
    with pytest.raises(ValueError, match="one group has 9"):
        blind_scores(MEMBERS, NON_MEMBERS[:9])
