"""Rollouts and steps are counted, resume in mid-rollout is exact, what is planted is learned."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    ScriptedGenerator,
    Seed,
    seeds_to_dataset,
)
from teamsrl_hf.operations import read_rewrite
from teamsrl_hf.ppo_trainer import RolloutSampler

SEEDS = [Seed(f"s{i}", f"Explain subject number {i} to a friend.") for i in range(40)]


def _only(*names):
    """An instructor to whom only some operations mean anything."""

    def answer(request):
        found = read_rewrite(request.messages[0]["content"])
        if found is None:
            return "Different"
        name, text = found
        return f"{text} Further {name} {len(text)}." if name in names else text

    return ScriptedGenerator(answer)


def _trainer(tmp_path, instructor, seeds=SEEDS, **changes):
    changes = {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, **changes}
    args = InstructionGenPPOConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        logging_steps=changes.pop("logging_steps", 8),
        save_strategy=changes.pop("save_strategy", "no"),
        num_mini_batches=2,
        num_ppo_epochs=2,
        **changes,
    )
    torch.manual_seed(0)
    policy = OperationPolicy(OperationPolicyConfig())
    held_out = seeds_to_dataset([Seed(f"t{i}", f"Describe topic {i} briefly.") for i in range(10)])
    return InstructionGenPPOTrainer(
        policy, args, instructor, train_dataset=seeds_to_dataset(seeds), eval_dataset=held_out
    )


def test_calls_are_one_rollout_for_every_four_optimizer_steps(tmp_path):
    instructor = _only()
    _trainer(tmp_path, instructor).train()
    # 8 steps / (2 passes × 2 minibatches) = 2 rollouts of 4 × 2 = 8 episodes with 6 operations each; nothing passes
    # the rules, so the reviewer is never asked.
    assert instructor.calls == 2 * 8 * 6


def test_gradient_accumulation_makes_larger_rollouts_not_more_steps(tmp_path):
    instructor = _only()
    trainer = _trainer(tmp_path, instructor, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.state.global_step == 8
    assert instructor.calls == 2 * 16 * 6


def test_a_planted_best_operation_is_learned(tmp_path):
    trainer = _trainer(tmp_path, _only("concretize"), max_steps=120, per_device_train_batch_size=8)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_accept_rate"] < 0.4
    assert after["eval_accept_rate"] > 0.9
    assert after["eval_random_accept_rate"] == before["eval_random_accept_rate"]
    assert after["eval_lift"] > 3


def test_where_every_operation_pays_alike_nothing_is_learned(tmp_path):
    trainer = _trainer(tmp_path, _only(), max_steps=40)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.args.entropy_coef = 0.0
    trainer.train()
    assert torch.equal(trainer.model.operation_head.bias, before["operation_head.bias"])
    assert not torch.equal(trainer.model.value_head.bias, before["value_head.bias"])


def test_every_part_of_the_policy_is_trained(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"))
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    still = [name for name, tensor in trainer.model.named_parameters() if torch.equal(tensor, before[name])]
    assert still == []


def test_all_metrics_are_logged_by_name(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"))
    trainer.train()
    logged = trainer.state.log_history[0]
    expected = "reward reward_std accept_rate entropy approx_kl clip_ratio policy_loss value_loss explained_variance"
    assert set(expected.split()) <= logged.keys()
    assert {"operations/deepen", "rewards/validity_reward/mean", "rewards/novelty_reward/mean"} <= logged.keys()
    assert sum(value for name, value in logged.items() if name.startswith("operations/")) - 1 < 1e-9


def test_resuming_in_the_middle_of_a_rollout_equals_the_unbroken_run_bit_for_bit(tmp_path):
    whole = _trainer(tmp_path / "whole", _only("deepen", "breadth"))
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 5}
    _trainer(tmp_path / "cut", _only("deepen", "breadth"), **settings).train()
    instructor = _only("deepen", "breadth")
    resumed = _trainer(tmp_path / "cut", instructor, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "out" / "checkpoint-5"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    # Step 5 lies in the second and last rollout, which came with the checkpoint: no call was made again.
    assert instructor.calls == 0
    saved = load_file(tmp_path / "cut" / "out" / "checkpoint-5" / "rollout-0.safetensors")
    assert saved["actions"].shape == (48,)


def test_the_sampler_repeats_whole_rollouts_and_shuffles_each_epoch():
    sampler = RolloutSampler(size=10, batch_size=4, repeat=3, seed=1)
    first = list(sampler)
    assert len(first) == len(sampler) == 24
    assert first[:4] == first[4:8] == first[8:12]
    assert len({*first}) == 8
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_a_set_smaller_than_a_rollout_fills_it_by_repetition():
    order = list(RolloutSampler(size=3, batch_size=8, repeat=1, seed=1))
    assert len(order) == 8
    assert {*order} == {0, 1, 2}


def test_a_reward_function_of_the_wrong_shape_is_told_both_numbers(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"))
    trainer.reward_funcs = [lambda trajectories: [1.0]]
    with pytest.raises(ValueError, match="returned 1 rewards for 8 trajectories"):
        trainer.train()


def test_callbacks_see_evaluations(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            seen.append(metrics["eval_lift"])

    trainer = _trainer(tmp_path, _only("deepen"), eval_strategy="steps", eval_steps=4)
    trainer.add_callback(Watch())
    trainer.train()
    assert len(seen) == 2


def test_the_card_tells_the_rewards_before_and_after(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"))
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    after = trainer.evaluate()["eval_reward"]
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| seeds: trained on, held out | 40, 10 |" in card
    assert "| operations tried in training | 96 |" in card
    assert before != after
    assert f"before, after | {before:.3f}, {after:.3f} |" in card


def test_saved_policies_hold_no_pickle(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"))
    trainer.save_model()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
