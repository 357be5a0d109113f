import json

import pytest
import torch
from transformers import AutoConfig, AutoModel

from teamsrl_hf import Operation, OperationPolicy, OperationPolicyConfig, State
from teamsrl_hf.ppo.policy import check_policy_operations, load_policy
from teamsrl_hf.text.operations import OPERATIONS

STATES = [
    State("Why is the sky blue?"),
    State("Sort these numbers.\n\n3, 1, 2", ("deepen", "breadth"), (True, False), 2),
]


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return OperationPolicy(OperationPolicyConfig())


def test_a_new_policy_is_close_to_the_uniform_chooser(policy):
    probabilities = torch.softmax(policy(**policy.featurize(STATES)).logits, -1)
    assert probabilities.shape == (2, 6)
    assert probabilities.sub(1 / 6).abs().max() < 0.02


def _heads(**config):
    torch.manual_seed(0)
    policy = OperationPolicy(OperationPolicyConfig(**config))
    torch.nn.init.normal_(policy.operation_head.weight)

    def logits(state):
        with torch.no_grad():
            return policy(**policy.featurize([state])).logits

    return logits


def test_a_policy_that_sees_no_text_says_the_same_of_all_texts():
    other = State("Name a river.", *list(vars(STATES[1]).values())[1:])
    assert torch.equal(_heads(see_text=False)(STATES[1]), _heads(see_text=False)(other))
    assert not torch.equal(_heads()(STATES[1]), _heads()(other))


def test_a_policy_that_sees_no_history_still_sees_the_step():
    logits = _heads(see_history=False)
    text = STATES[1].text
    assert torch.equal(logits(STATES[1]), logits(State(text, ("concretize", "deepen"), (False, False), 2)))
    assert not torch.equal(logits(State(text, step=2)), logits(State(text, step=3)))


def test_saving_and_loading_keeps_logits_values_and_operations(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    again = OperationPolicy.from_pretrained(tmp_path)
    inputs = policy.featurize(STATES)
    for name, tensor in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    # Not bit for bit: where a weight lies in memory may turn the last bit of a product.
    torch.testing.assert_close(again(**inputs).logits, policy(**inputs).logits)
    torch.testing.assert_close(again(**inputs).value, policy(**inputs).value)
    assert again.config.operation_tuple() == OPERATIONS
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_users_own_operations_travel_with_the_policy(tmp_path):
    own = [{"name": "translate", "sentence": "Ask for the answer in another language."}]
    OperationPolicy(OperationPolicyConfig(operations=own)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["operations"] == own
    loaded = OperationPolicy.from_pretrained(tmp_path)
    assert loaded.config.operation_tuple() == (Operation("translate", "Ask for the answer in another language."),)
    assert loaded.choose([State("Name a bird.")], [0.99]) == [0]


def test_the_auto_classes_know_the_policy(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), OperationPolicyConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), OperationPolicy)


def test_other_operations_than_the_policys_are_an_error_that_shows_both_lists(policy):
    with pytest.raises(ValueError, match=r"chooses among \['breadth', .*but the operations in use are \['deepen'\]"):
        check_policy_operations(policy, OPERATIONS[2:3])


def test_what_the_policy_sees_differs_by_text_history_and_step(policy):
    def output(state):
        return policy(**policy.featurize([state])).value.item()

    base = State("Why is the sky blue?")
    assert output(State("Why is the grass green?")) != output(base)
    assert output(State(base.text, ("deepen",), (True,), 0)) != output(base)
    assert output(State(base.text, ("deepen",), (True,), 0)) != output(State(base.text, ("deepen",), (False,), 0))
    assert output(State(base.text, step=1)) != output(base)


def test_operations_are_drawn_in_proportion_to_their_probability(policy):
    policy.config.most_likely = False
    with torch.no_grad():
        policy.operation_head.weight.zero_()
        policy.operation_head.bias.copy_(torch.tensor([0.5, 0.25, 0.25, 0, 0, 0]).clamp(min=1e-9).log())
    drawn = policy.choose_batch([STATES[0]] * 1000, [i / 1000 for i in range(1000)])
    assert [drawn.count(k) for k in range(6)] == [500, 250, 250, 0, 0, 0]


def test_by_default_the_most_likely_operation_is_chosen_whatever_the_random_number(policy):
    with torch.no_grad():
        policy.operation_head.weight.zero_()
        policy.operation_head.bias.copy_(torch.tensor([0.0, 0.1, 0.0, 0.2, 0.0, 0.0]))
    assert policy.choose([STATES[0]] * 3, [0.0, 0.5, 0.99]) == [3, 3, 3]


def test_the_largest_random_number_still_picks_an_operation(policy):
    policy.config.most_likely = False
    assert policy.choose(STATES, [0.0, 1.0 - 2**-53]) == [0, 5]


def test_one_by_one_and_batched_choices_agree(policy):
    uniforms = [0.1, 0.9]
    assert policy.choose(STATES, uniforms) == policy.choose_batch(STATES, uniforms)
    policy.config.most_likely = False
    assert policy.choose(STATES, uniforms) == policy.choose_batch(STATES, uniforms)


def test_a_policy_saved_before_it_read_the_form_of_a_text_loads_and_draws_as_it_did(tmp_path):
    torch.manual_seed(0)
    OperationPolicy(OperationPolicyConfig(form=False, most_likely=False)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config.pop("form"), config.pop("most_likely")) == (False, False)
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = load_policy(tmp_path)
    assert old.encoder[0].in_features == 32 + 26
    assert old.choose(STATES, [0.0, 1.0 - 2**-53]) == [0, 5]


def test_a_new_policy_keeps_its_form_features_when_it_is_saved(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    assert load_policy(tmp_path).encoder[0].in_features == 11 + 32 + 26


def test_steps_beyond_the_episode_and_long_texts_do_not_crash(policy):
    names = tuple(operation.name for operation in OPERATIONS)
    late = State("word " * 10_000, names * 3, (True,) * 18, 18)
    assert policy.choose([late], [0.5])[0] in range(6)


def test_the_value_of_a_state_is_what_the_value_head_says(policy):
    with torch.no_grad():
        policy.value_head.weight.zero_()
        policy.value_head.bias.fill_(1.5)
    assert policy.value(STATES) == [1.5, 1.5]
