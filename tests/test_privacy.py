import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from teamsrl_hf.evaluation.intervals import bootstrap_interval
from teamsrl_hf.evaluation.privacy.rates import auc, group_weights, resampled_tpr, roc_curve, tpr_at_fpr
from teamsrl_hf.evaluation.privacy.report import audit, audit_section, report, roc_plot
from teamsrl_hf.evaluation.privacy.scores import attack, membership_scores
from teamsrl_hf.evaluation.privacy.split import blind_check, blind_scores, split_members

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
    from teamsrl_hf.evaluation.privacy.scores import _score_row

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
    with pytest.raises(ValueError, match="one side has 9"):
        blind_scores(MEMBERS, NON_MEMBERS[:9])


def test_rows_are_scored_on_their_answers_alone_as_in_fine_tuning(tokenizer):
    """A model whose prompts differ but whose answers are the same must score them by the answers' tokens."""
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    try:
        row = {
            "prompt": [{"role": "user", "content": "word1 word2"}],
            "completion": [{"role": "assistant", "content": "word3 word4"}],
        }
        model = tiny_llama().eval()
        scores = membership_scores(model, tokenizer, [row])
        ids = tokenizer("word1 word2 word3 word4", return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[0, :2] = -100
        with torch.no_grad():
            assert scores["loss"][0] == pytest.approx(-model(ids, labels=labels).loss.item(), abs=1e-5)
        with pytest.raises(ValueError, match="none that counts within max_length = 2"):
            membership_scores(model, tokenizer, [row], max_length=2)
    finally:
        tokenizer.chat_template = None


def test_a_split_parts_groups_in_halves_and_depends_on_the_seed():
    groups = [f"s{i // 3}" for i in range(60)]
    inside, outside = split_members(groups, seed=1)
    assert sorted(inside + outside) == list(range(60))
    assert len(inside) == len(outside) == 30
    assert not {groups[i] for i in inside} & {groups[i] for i in outside}
    assert split_members(groups, seed=1) == (inside, outside)
    assert split_members(groups, seed=2) != (inside, outside)
    with pytest.raises(ValueError, match="needs at least 2 groups"):
        split_members(["one", "one"])


def test_the_roc_curve_is_worked_by_hand_and_its_area_is_the_auc():
    fpr, tpr = roc_curve([3, 2, 2], [2, 1])
    assert fpr.tolist() == [0, 0, 0.5, 1]
    assert tpr == pytest.approx([0, 1 / 3, 1, 1])
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc([3, 2, 2], [2, 1])) == pytest.approx(5 / 6)


def test_curve_and_area_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra `evaluation`")
    luck = np.random.default_rng(0)
    members, others = luck.normal(0.5, 1, 300).round(1), luck.normal(0, 1, 200).round(1)
    labels, scores = np.repeat([1, 0], [300, 200]), np.concatenate([members, others])
    assert auc(members, others) == pytest.approx(metrics.roc_auc_score(labels, scores))
    fpr, tpr = roc_curve(members, others)
    theirs = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert fpr == pytest.approx(theirs[0])
    assert tpr == pytest.approx(theirs[1])


def scores_of(members, others):
    return {"loss": (np.asarray(members, float), np.asarray(others, float))}


FAIR = {"auc": 0.51, "by_chance": 0.6, "p_value": 0.4}


def test_the_interval_is_that_of_an_ordinary_bootstrap():
    luck = np.random.default_rng(3)
    members, others = luck.normal(0.7, 1, 150), luck.normal(0, 1, 120)
    found = report(scores_of(members, others), FAIR)["attacks"]["loss"]["interval"]
    # Two bootstraps of 1,000 differ by some 3 % of the width, .14.
    assert found == pytest.approx(bootstrap_interval((members, others), auc), abs=0.015)


def test_rows_that_hang_together_widen_the_interval():
    """Each score stands four times: to count the copies as rows would halve the interval."""
    luck = np.random.default_rng(4)
    members, others = (np.repeat(luck.normal(mean, 1, 40), 4) for mean in (0.5, 0))
    groups = tuple([i // 4 for i in range(160)] for _ in range(2))
    copied = report(scores_of(members, others), FAIR)["attacks"]["loss"]["interval"]
    grouped = report(scores_of(members, others), FAIR, groups)["attacks"]["loss"]["interval"]
    single = report(scores_of(members[::4], others[::4]), FAIR)["attacks"]["loss"]["interval"]
    assert np.ptp(grouped) == pytest.approx(np.ptp(single), rel=0.1)
    assert np.ptp(grouped) > 1.7 * np.ptp(copied)


def test_the_rate_at_one_percent_is_told_with_its_interval_from_two_thousand_on():
    luck = np.random.default_rng(5)
    members, others = luck.normal(1.5, 1, 500), luck.normal(0, 1, 2000)
    found = report(scores_of(members, others), FAIR)["attacks"]["loss"]
    # P(N(1.5, 1) > 2.326) = .204.
    assert found["tpr_at_1_percent_fpr"] == pytest.approx(0.204, abs=0.06)
    low, high = found["tpr_interval"]
    assert low < found["tpr_at_1_percent_fpr"] < high
    assert high - low < 0.2
    assert "tpr_interval" not in report(scores_of(members, others[:1999]), FAIR)["attacks"]["loss"]


def test_a_resample_of_every_row_once_gives_the_rate_itself():
    luck = np.random.default_rng(6)
    members, others = luck.normal(1, 1, 100).round(1), luck.normal(0, 1, 300).round(1)
    once = [(np.ones(100), np.ones(300))]
    for fpr in (0.01, 0.1):
        assert resampled_tpr(members, others, once, fpr)[0] == pytest.approx(tpr_at_fpr(members, others, fpr))
    assert {(ours.sum(), theirs.sum()) for ours, theirs in group_weights(members, others, None, 0)} == {(100, 300)}


def test_members_are_said_to_be_found_only_where_an_attack_clears_chance():
    luck = np.random.default_rng(7)
    others = luck.normal(0, 1, 200)
    found = report(scores_of(luck.normal(1, 1, 200), others), FAIR)
    assert found["conclusion"].startswith("The attacks separate members from non-members: best attack `loss`, AUC 0.7")
    nothing = report(scores_of(luck.normal(0, 1, 200), others), FAIR)["conclusion"]
    assert nothing.startswith("No attack separated 200 members from 200 non-members. This does not prove privacy")


def test_of_an_unfair_split_nothing_is_claimed_however_well_the_attack_does():
    found = report(scores_of([3, 4] * 20, [1, 2] * 20), {"auc": 0.8, "by_chance": 0.6, "p_value": 0.005})
    assert found["split_ok"] is False
    assert found["conclusion"].startswith("No conclusion: words and lengths alone separate")
    section = audit_section(found, "roc.png")
    assert "1.000" not in section
    assert "roc.png" not in section


def test_the_blind_check_flags_a_fair_split_as_rarely_as_it_says():
    """Texts of one field hang together and each gives three rows: where a bootstrap errs, the check must not."""
    flagged = 0
    for trial in range(20):
        luck = random.Random(trial)
        fields = [luck.sample(WORDS, 15) for _ in range(12)]
        bodies = [luck.choices(luck.choice(fields), k=8) for _ in range(60)]
        rows = [(i, " ".join([*body, luck.choice(WORDS)])) for i, body in enumerate(bodies) for _ in range(3)]
        inside, outside = split_members([group for group, _ in rows], seed=trial)
        sides = [[rows[i][1] for i in side] for side in (inside, outside)]
        groups = tuple([rows[i][0] for i in side] for side in (inside, outside))
        flagged += blind_check(*sides, groups)["p_value"] < 0.05
    # Of 20 fair splits 1 is flagged on average; 5 or more have a chance below .003.
    assert flagged <= 4


def test_a_difference_in_length_alone_is_seen():
    short, long = ([text[: len(text) // part] for text in make_texts(40, 5)] for part in (2, 1))
    assert blind_check(short, long)["p_value"] < 0.05


def test_without_a_record_nobody_is_called_a_member():
    found = report(scores_of(range(40), range(40)), FAIR)
    assert "Unknown: no record says which rows this model was trained on." in audit_section(found)
    assert "By its record" not in audit_section(found)
    assert "By its record, the model was trained on the 40 members and not on the 40 non-members." in audit_section(
        {**found, "membership": "recorded"}
    )


def test_the_plot_shows_every_attack_and_is_the_same_each_time(trained, tokenizer, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `evaluation`")
    pairs = attack(trained, tokenizer, MEMBERS[:15], NON_MEMBERS[:15])
    assert set(pairs) == {"loss", "zlib", "min_k", "min_k_plus_plus", "reference", "control"}
    first = roc_plot(pairs, tmp_path / "a.png").read_bytes()
    assert first[:4] == b"\x89PNG"
    assert roc_plot(pairs, tmp_path / "b.png").read_bytes() == first
