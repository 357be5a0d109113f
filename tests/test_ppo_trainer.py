"""Rollouts and steps are counted, resume in mid-rollout is exact, what is planted is learned."""

from dataclasses import replace

import pytest
import torch
from asked import changed, rewrite_of
from datasets import load_dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback

from teamsrl_hf import (
    Completion,
    EvolvedExamplesCallback,
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    Rulebook,
    ScriptedGenerator,
    Seed,
    State,
    seeds_to_dataset,
)
from teamsrl_hf.errors import CallsRefused, UserError
from teamsrl_hf.ppo.rollout_buffer import RolloutSampler

SEEDS = [Seed(f"s{i}", f"Explain subject number {i} to a friend.") for i in range(40)]


def _only(*names):
    """An instructor to whom only some operations mean anything."""

    def answer(request):
        found = rewrite_of(request)
        if found is None:
            return "Different"
        name, text = found
        return changed(name, text) if name in names else text

    return ScriptedGenerator(answer)


def _trainer(tmp_path, instructor, seeds=SEEDS, kind=InstructionGenPPOTrainer, **changes):
    changes = {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, **changes}
    args = InstructionGenPPOConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        disable_tqdm=True,
        report_to=changes.pop("report_to", "none"),
        logging_steps=changes.pop("logging_steps", 8),
        save_strategy=changes.pop("save_strategy", "no"),
        num_mini_batches=2,
        num_ppo_epochs=2,
        **changes,
    )
    torch.manual_seed(0)
    policy = OperationPolicy(OperationPolicyConfig())
    held_out = seeds_to_dataset([Seed(f"t{i}", f"Describe topic {i} briefly.") for i in range(10)])
    return kind(policy, args, instructor, train_dataset=seeds_to_dataset(seeds), eval_dataset=held_out)


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


@pytest.mark.parametrize(
    ("chains", "rollouts", "size"),
    # A larger budget makes larger rollouts, not more of them, until a rollout has 128 chains; none walks more chains.
    [(4, 1, 4), (32, 8, 4), (100, 8, 12), (192, 8, 24), (640, 8, 80), (1280, 10, 128), (2560, 20, 128)],
)
def test_a_budget_of_chains_decides_the_size_of_rollouts(tmp_path, chains, rollouts, size):
    args = InstructionGenPPOConfig(str(tmp_path), use_cpu=True, report_to="none", total_episodes=chains)
    assert (args.episodes_per_rollout, args.max_steps) == (size, rollouts * 8 * 4)


def test_a_warm_started_policy_begins_as_a_bandit_has_ended(tmp_path):
    options = {"total_episodes": 128, "max_steps": 1, "learning_rate": 0.0}
    trainer = _trainer(tmp_path, _only("concretize"), warm_start=0.5, **options)
    trainer.train()
    assert trainer.evaluate()["eval_accept_rate"] > 0.9
    # 8 rollouts of 16 chains: 4 are the bandit's, and the first of the policy's own 4 was walked.
    assert trainer.facts()["environment_steps"] == (4 + 1) * 16 * 6
    assert trainer.policy.value([State(SEEDS[0].text)])[0] > 1.5  # Near the sum of rewards halved at each step, 2.
    cold = _trainer(tmp_path / "cold", _only("concretize"), **options)
    cold.train()
    assert cold.policy.value([State(SEEDS[0].text)])[0] < 1


def test_a_warm_start_without_a_budget_is_refused(tmp_path):
    with pytest.raises(UserError, match="warm_start is a share of total_episodes"):
        InstructionGenPPOConfig(str(tmp_path), use_cpu=True, report_to="none", warm_start=0.5)


def test_max_steps_ends_a_training_before_its_budget_does(tmp_path):
    instructor = _only()
    _trainer(tmp_path, instructor, total_episodes=64, max_steps=6).train()
    assert instructor.calls == 2 * 8 * 6


def test_a_planted_best_operation_is_learned(tmp_path):
    trainer = _trainer(tmp_path, _only("concretize"), max_steps=120, per_device_train_batch_size=8)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    # A new policy has no preference yet, so it is evaluated as one that draws.
    assert before["eval_accept_rate"] == pytest.approx(before["eval_random_accept_rate"], abs=0.05)
    assert after["eval_accept_rate"] > 0.9
    assert after["eval_random_accept_rate"] == before["eval_random_accept_rate"]
    assert after["eval_lift"] > 3
    rejected = sum(trainer.facts()["rejections_after"].values())
    assert rejected / (6 * len(trainer.eval_dataset)) == pytest.approx(1 - after["eval_accept_rate"])


def test_where_every_operation_pays_alike_nothing_is_learned(tmp_path):
    trainer = _trainer(tmp_path, _only(), max_steps=40)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.args.entropy_coef = 0.0
    trainer.train()
    assert torch.equal(trainer.model.operation_head.bias, before["operation_head.bias"])
    assert not torch.equal(trainer.model.value_head.bias, before["value_head.bias"])


def test_failed_calls_teach_nothing(tmp_path):
    pays_alike = _only("breadth", "add_constraints", "concretize", "increase_reasoning", "complicate_input")

    def answer(request):
        found = rewrite_of(request)
        if found and found[0] == "deepen":
            return Completion("", "m", error="HTTP 400: the prompt is too long")
        return pays_alike._answers(request)

    trainer = _trainer(tmp_path, ScriptedGenerator(answer), reward_weights=[1.0, 0.0], max_steps=16)
    trainer.args.entropy_coef = 0.0
    trainer.policy.config.most_likely = False  # It learns nothing here, so one operation alone would be its favourite.
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    evaluated = trainer.evaluate()
    assert torch.equal(trainer.model.operation_head.bias, before["operation_head.bias"])
    assert not torch.equal(trainer.model.value_head.bias, before["value_head.bias"])
    logged = trainer.state.log_history[0]
    assert 0.05 < logged["failed_calls"] < 0.35
    assert logged["operations/deepen"] == 0
    assert (logged["reward"], logged["reward_std"], logged["accept_rate"]) == (6, 0, 1)
    assert (evaluated["eval_reward"], evaluated["eval_random_reward"], evaluated["eval_lift"]) == (6, 6, 0)


def test_where_calls_fail_nothing_is_trained(tmp_path):
    instructor = ScriptedGenerator(lambda request: Completion("", "m", error="HTTP 404: no such model"))
    trainer = _trainer(tmp_path, instructor)
    with pytest.raises(CallsRefused, match=r"48 of 48 calls to the instructor failed, .* HTTP 404: no such model"):
        trainer.train()
    with pytest.raises(CallsRefused, match="HTTP 404"):
        trainer.evaluate()
    assert trainer.state.global_step == 0


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
    shares = [value for name, value in logged.items() if name.startswith("operations/")]
    assert sum(shares) == pytest.approx(1)


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


def _contextual(request):
    """Only one operation works on a text, and which one the text says."""
    found = rewrite_of(request)
    if found is None:
        return "Different"
    name, text = found
    wanted = "deepen" if "whale" in text else "concretize"
    return f"{text} Further {len(text)}." if name == wanted else text


def _animals(start, count, shuffled=False):
    """Seeds about whales and about foxes; shuffled, the words that tell them apart stand in all of them."""
    names = ("whale and fox",) * 2 if shuffled else ("whale", "fox")
    return [Seed(f"s{i}", f"Question {i}: describe the {names[i % 2]}.") for i in range(start, start + count)]


def _lift_on(tmp_path, seeds, held_out, instructor):
    trainer = _trainer(tmp_path, instructor, seeds=seeds, max_steps=160, per_device_train_batch_size=8)
    trainer.train()
    return trainer.evaluate(seeds_to_dataset(held_out))


def test_what_pays_by_the_text_is_learned_from_the_text(tmp_path):
    learned = _lift_on(tmp_path, _animals(0, 40), _animals(100, 20), ScriptedGenerator(_contextual))
    assert learned["eval_accept_rate"] > 0.95
    assert learned["eval_lift"] - learned["eval_lift_error"] > 0


def test_a_text_that_does_not_tell_cannot_be_learned_from(tmp_path):
    by_number = {seed.text: ("deepen", "concretize")[i % 2] for i, seed in enumerate(_animals(0, 200, shuffled=True))}

    def hidden(request):
        found = rewrite_of(request)
        if found is None:
            return "Different"
        name, text = found
        first = text.split(" Further")[0]
        return f"{text} Further {len(text)}." if name == by_number[first] else text

    seeds, held_out = _animals(0, 40, shuffled=True), _animals(100, 100, shuffled=True)
    learned = _lift_on(tmp_path, seeds, held_out, ScriptedGenerator(hidden))
    # The best there is without the text, 5.5 of 6: try the one, and if nothing came of it, stay with the other.
    assert learned["eval_accept_rate"] < 0.93


def test_with_a_constant_reward_the_mean_policy_gradient_is_zero(tmp_path):
    trainer = _trainer(tmp_path, _only("breadth", "add_constraints", "deepen"), vf_coef=0.0, entropy_coef=0.0)
    trainer.reward_funcs = [saturated]
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    for name, tensor in trainer.model.named_parameters():
        assert torch.equal(tensor, before[name]), name


def saturated(trajectories):
    """The official code's reward, which was 1 at every step of every update."""
    return [[1.0] * len(trajectory.transitions) for trajectory in trajectories]


def test_masked_operations_are_never_taken(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"), max_steps=60)
    trainer.policy.config.max_repeats = 1
    trainer.train()
    chains = trainer.collect([Seed("x", "Explain the subject.")] * 4, trainer._choose, ("test",))
    for chain in chains:
        names = [transition.operation for transition in chain.transitions]
        assert len(set(names)) == len(names) == 6


def test_the_order_of_seeds_depends_on_the_seed():
    first, second = (list(RolloutSampler(size=10, batch_size=4, repeat=1, seed=seed)) for seed in (1, 2))
    assert first != second


def test_losses_are_logged_as_their_mean_since_the_last_log(tmp_path):
    trainer = _trainer(tmp_path, _only())
    trainer._losses += [torch.full((6,), value) for value in (1.0, 3.0)]
    trainer.log({})
    trainer._losses += [torch.full((6,), 5.0)]
    trainer.log({})
    assert [entry["policy_loss"] for entry in trainer.state.log_history] == [2.0, 5.0]


def test_the_error_of_the_lift_is_half_of_its_interval_over_seeds(tmp_path, monkeypatch):
    trainer = _trainer(tmp_path, _only())
    rewards = iter([torch.tensor([3.0, 5.0, 1.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])])
    chains = trainer.collect(SEEDS[:4], trainer._choose, ("test",))
    monkeypatch.setattr(trainer, "_evaluate_chooser", lambda dataset, choose: (chains, next(rewards)))
    found = trainer.evaluate()
    assert (found["eval_reward"], found["eval_random_reward"], found["eval_lift"]) == (3.0, 1.0, 2.0)
    assert found["eval_lift_error"] == pytest.approx(1.96 * 2**0.5 / 2)


def test_a_rollout_is_left_above_one_and_a_half_times_the_target(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"), target_kl=0.01)
    trainer._buffer.taken = 1
    for approx_kl, stopped in ((0.0149, -1), (0.0151, 0)):
        trainer._buffer.stopped = -1
        trainer._watch_divergence(torch.tensor(approx_kl))
        assert trainer._buffer.stopped == stopped


def test_a_rollout_is_left_once_the_policy_has_moved_too_far(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"), max_steps=40, learning_rate=0.1, target_kl=0.01)
    trainer.train()
    skipped = [entry["skipped"] for entry in trainer.state.log_history if "skipped" in entry]
    assert max(skipped) > 0.2
    calm = _trainer(tmp_path / "calm", _only("deepen"), max_steps=8, learning_rate=1e-5, target_kl=0.5)
    calm.train()
    assert calm.state.log_history[0]["skipped"] == 0.0


def test_chains_may_end_early(tmp_path):
    class Impatient(InstructionGenPPOTrainer):
        def collect(self, seeds, choose, key):
            chains = super().collect(seeds, choose, key)
            return [replace(chain, transitions=chain.transitions[: 1 + i % 6]) for i, chain in enumerate(chains)]

    trainer = _trainer(tmp_path, _only("deepen"), kind=Impatient)
    trainer.train()
    # Eight chains of 1, 2, 3, 4, 5, 6, 1, 2 steps.
    assert trainer._buffer.tensors["actions"].shape == (24,)


def test_bootstrapping_adds_the_value_of_what_follows_the_cut(tmp_path):
    plain, cut = _trainer(tmp_path, _only("deepen")), _trainer(tmp_path, _only("deepen"), bootstrap_value=True)
    for trainer in (plain, cut):
        torch.nn.init.constant_(trainer.policy.value_head.bias, 5.0)
        torch.nn.init.zeros_(trainer.policy.value_head.weight)
    chains = plain.collect(SEEDS[:2], plain._choose, ("test",))
    rewards = torch.zeros(2, 6)
    last = [t._to_tensors(chains, rewards, torch.tensor(1.0))["returns"][5].item() for t in (plain, cut)]
    assert last == pytest.approx([0.0, 0.5 * 5.0])


def test_reward_functions_see_the_datasets_columns_and_may_log(tmp_path):
    def by_domain(trajectories, domain, log_metric, log_extra):
        log_metric("laws", sum(name == "law" for name in domain))
        log_extra("domain", domain)
        return [1.0 if name == "law" else None for name in domain]

    trainer = _trainer(tmp_path, _only("deepen"))
    domains = ["law", "art"] * 20
    trainer.train_dataset = trainer.train_dataset.add_column("domain", domains)
    trainer.reward_funcs = [by_domain]
    trainer.reward_weights = [1.0]
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/by_domain/mean"] == 1.0
    assert 0 < logged["laws"] < 8
    assert set(trainer.last_extras["domain"]) == {"law", "art"}


def test_the_better_checkpoint_is_kept_and_training_may_stop_early(tmp_path):
    trainer = _trainer(
        tmp_path,
        _only(),
        max_steps=40,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    # Nothing ever passes, so the third evaluation without a gain ends it.
    assert trainer.state.global_step == 12


def test_examples_are_printed_and_written_beside_the_metrics(tmp_path, capsys):
    trainer = _trainer(tmp_path, _only("deepen"))
    trainer.add_callback(EvolvedExamplesCallback(trainer, num_examples=1))
    trainer.train()
    rows = load_dataset("parquet", data_files=str(tmp_path / "out" / "examples" / "examples_00008.parquet"))["train"]
    assert len(rows) == 8
    assert set(rows.column_names) == {"step", "seed", "operations", "final", "reward"}
    assert " → " in rows[0]["operations"]
    assert "✗" in "".join(rows["operations"])


def test_the_mix_of_operations_is_told_by_step(tmp_path):
    metrics = _trainer(tmp_path, _only("deepen")).evaluate()
    for step in range(6):
        shares = [value for name, value in metrics.items() if name.startswith(f"eval_operations/{step}/")]
        assert sum(shares) == pytest.approx(1.0)


def test_an_untrained_policy_has_no_lift_worth_the_name(tmp_path):
    metrics = _trainer(tmp_path, _only("deepen")).evaluate()
    assert abs(metrics["eval_lift"]) <= metrics["eval_lift_error"] + 0.5


def test_metrics_reach_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="needs pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    _trainer(tmp_path, _only("deepen"), report_to="tensorboard").train()
    told = EventAccumulator(str(tmp_path / "board")).Reload().Tags()["scalars"]
    assert {"train/reward", "train/rewards/validity_reward/mean", "train/operations/deepen", "train/entropy"} <= {
        *told
    }


def test_metrics_and_examples_reach_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="needs pip install trackio")
    trainer = _trainer(tmp_path, _only("deepen"), report_to="trackio", project="operations", trackio_space_id=None)
    trainer.add_callback(EvolvedExamplesCallback(trainer, num_examples=0))
    trainer.train()
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("operations")
    logs = SQLiteStorage.get_logs("operations", run.name)
    assert {"train/reward", "train/operations/deepen", "train/entropy"} <= logs[0].keys()
    assert "Explain subject number" in str(logs[1]["examples"])


def _reads(trainer):
    """How many states the policy reads at a time."""
    read, featurize = [], trainer.policy.featurize
    trainer.policy.featurize = lambda states: read.append(len(states)) or featurize(states)
    return read


def test_the_states_of_a_rollout_are_read_step_by_step_to_act_and_to_update(tmp_path):
    trainer = _trainer(tmp_path, _only("deepen"), max_steps=4)
    read = _reads(trainer)
    trainer.train()
    assert read == [8] * 6 + [8] * 6  # One rollout: 8 chains, 6 steps.


def test_states_that_a_rollout_chose_for_by_itself_are_read_for_the_update(tmp_path):
    class Stubborn(InstructionGenPPOTrainer):
        def collect(self, seeds, choose, key):
            return super().collect(seeds, lambda states, uniforms: [2] * len(states), key)

    trainer = _trainer(tmp_path, _only("deepen"), kind=Stubborn, max_steps=4)
    read = _reads(trainer)
    trainer.train()
    assert read == [8] * 6
    assert trainer.state.global_step == 4


def test_reward_functions_get_the_instruction_the_input_and_the_id_of_each_seed(tmp_path):
    seen = []

    def own_text(trajectories, id, instruction, input):
        seen.extend(zip(trajectories, id, instruction, input))
        return [float(len(text)) for text in instruction]

    trainer = _trainer(tmp_path, _only("deepen"), max_steps=4)
    trainer.reward_funcs, trainer.reward_weights = [own_text], [1.0]
    trainer.train()
    assert len(seen) == 8
    assert [Seed(*columns) for _, *columns in seen] == [trajectory.seed for trajectory, *_ in seen]
    assert trainer.last_rewards.sum(1).tolist() == [len(trajectory.seed.instruction) for trajectory, *_ in seen]


def test_a_column_that_would_hide_what_reward_functions_get_is_refused_by_name(tmp_path):
    seeds = seeds_to_dataset(SEEDS).add_column("log_metric", ["x"] * len(SEEDS))
    arguments = InstructionGenPPOConfig(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(UserError, match=r"has a column 'log_metric', .* rename it"):
        InstructionGenPPOTrainer(OperationPolicy(OperationPolicyConfig()), arguments, Rulebook(), train_dataset=seeds)


def test_a_subclass_names_its_own_method_on_the_card(tmp_path):
    class OtherTrainer(InstructionGenPPOTrainer):
        _name = "REINFORCE"
        _paper = {"title": "Simple statistical gradient-following algorithms", "id": "9901.00001"}  # noqa: RUF012
        _tag_names = ("reinforce",)

    cards = []
    for kind in (InstructionGenPPOTrainer, OtherTrainer):
        trainer = _trainer(tmp_path / kind.__name__, _only("deepen"), kind=kind)
        trainer.save_model()
        trainer.create_model_card(tags="mine")
        cards.append((tmp_path / kind.__name__ / "out" / "README.md").read_text())
    ours, other = (ModelCard(card).data.tags for card in cards)
    assert ours == ["ppo", "instruction-generation", "teamsrl", "arxiv:2403.08694", "mine"]
    assert other == ["reinforce", "teamsrl", "arxiv:2403.08694", "arxiv:9901.00001", "mine"]
    assert "It was trained with PPO to get" in cards[0]
    link = "[Simple statistical gradient-following algorithms](https://arxiv.org/abs/9901.00001)"
    assert f"It was trained with REINFORCE ({link}) to get" in cards[1]


def test_a_reviewer_without_length_is_used_and_an_empty_output_dir_is_this_one(tmp_path, monkeypatch):
    class Cached(Rulebook):
        def __len__(self):
            return 0

    monkeypatch.chdir(tmp_path)
    reviewer = Cached()
    arguments = InstructionGenPPOConfig("", use_cpu=True, report_to="none")
    policy = OperationPolicy(OperationPolicyConfig())
    assert InstructionGenPPOTrainer(policy, arguments, Rulebook(), reviewer=reviewer).reviewer is reviewer
    assert arguments.output_dir == "."
