"""Numbers worked by hand."""

import math

import pytest
import torch

from teamsrl_hf.ppo.losses import (
    explained_variance,
    generalized_advantages,
    policy_loss,
    ppo_loss,
    reward_spread,
    value_loss,
    whiten,
)


def test_advantages_of_two_steps_follow_the_recursion_by_hand():
    rewards, value = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 1.0]])
    advantages, returns = generalized_advantages(rewards, value, gamma=0.5, lam=0.5)
    # Step 1: 2 − 1 = 1. Step 0: 1 + .5·1 − .5 + .5·.5·1 = 1.25.
    assert advantages.tolist() == [[1.25, 1.0]]
    assert returns.tolist() == [[1.75, 2.0]]


def test_with_lambda_one_returns_are_discounted_sums_of_rewards():
    rewards, value = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[7.0, -3.0, 2.0]])
    _, returns = generalized_advantages(rewards, value, gamma=0.5, lam=1.0)
    assert returns.tolist() == [[1.75, 1.5, 1.0]]


def test_whitening_constant_values_gives_zeros_and_no_nan():
    same = torch.full((4,), 3.0)
    assert whiten(same, same, torch.tensor(1.0)).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_whitening_gives_mean_zero_and_deviation_one():
    advantages = torch.tensor([1.0, 3.0])
    assert whiten(advantages, advantages, torch.tensor(9.0)).tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)


def test_advantages_that_vary_more_than_rewards_are_not_blown_up():
    advantages = torch.tensor([1.0, 3.0])
    assert whiten(advantages, advantages, torch.tensor(0.25)).tolist() == pytest.approx([-0.25, 0.25], abs=1e-5)
    assert whiten(advantages, advantages, torch.tensor(0.0)).tolist() == [0.0, 0.0]


def test_the_spread_of_rewards_is_taken_step_by_step():
    assert reward_spread(torch.ones(5, 6), gamma=0.9).item() == 0.0
    # Sums from each step on, with gamma .5: [1, 0] and [3, 0]; about their means 2 and 0: ±1 and 0.
    assert reward_spread(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), gamma=0.5).item() == pytest.approx(math.sqrt(0.5))


def test_the_policy_loss_is_clipped_where_the_ratio_left_the_range_to_its_profit():
    logprobs, old = torch.tensor([math.log(1.5), math.log(0.5)]), torch.zeros(2)
    loss, clip_ratio = policy_loss(logprobs, old, torch.tensor([1.0, 1.0]), cliprange=0.2)
    # Ratios 1.5 and 0.5 with advantage 1: −min(1.5, 1.2) and −min(.5, .8).
    assert loss.item() == pytest.approx(-(1.2 + 0.5) / 2)
    assert clip_ratio.item() == 1.0


def test_the_value_loss_takes_the_larger_of_plain_and_clipped_error():
    loss = value_loss(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([2.0]), cliprange=0.5)
    assert loss.item() == pytest.approx(0.5 * 1.5**2)


def test_gradients_are_those_of_the_textbook_formulas():
    generator = torch.Generator().manual_seed(0)
    logprobs, old_logprobs, advantages, value, old_value, returns = torch.randn(6, 500, generator=generator)
    moved, valued = (0.3 * logprobs).requires_grad_(), value.requires_grad_()
    policy_loss(moved, 0.3 * old_logprobs, advantages, cliprange=0.2)[0].backward()
    value_loss(valued, old_value, returns, cliprange=0.2).backward()
    got = moved.grad.clone(), valued.grad.clone()
    moved.grad = valued.grad = None
    # Schulman et al. 2017, eq. 7, and ppo2 of OpenAI baselines, as they are printed.
    ratio = torch.exp(moved - 0.3 * old_logprobs)
    (-torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()).backward()
    near = old_value + (valued - old_value).clamp(-0.2, 0.2)
    (0.5 * torch.max((valued - returns) ** 2, (near - returns) ** 2).mean()).backward()
    # Where the clipped value is the value itself, rounding decides which of them the formula takes.
    assert torch.allclose(got[0], moved.grad, atol=1e-9)
    assert torch.allclose(got[1], valued.grad, atol=1e-9)
    assert all((gradient == 0).any() for gradient in got)  # Some were clipped.


def test_a_uniform_policy_over_four_operations_has_entropy_log_four_and_no_divergence_from_itself():
    n = 3
    old_logprobs = torch.full((n,), -math.log(4))
    losses = ppo_loss(
        torch.zeros(n, 4),
        torch.zeros(n),
        torch.tensor([0, 1, 2]),
        old_logprobs,
        torch.zeros(n),
        torch.zeros(n),
        torch.zeros(n),
    )
    assert losses.entropy.item() == pytest.approx(math.log(4))
    assert losses.approx_kl.item() == pytest.approx(0.0, abs=1e-7)
    assert losses.total.item() == pytest.approx(-0.01 * math.log(4))


def test_the_gradient_raises_the_probability_of_a_better_than_expected_action():
    logits = torch.zeros(1, 3, requires_grad=True)
    old = torch.log_softmax(logits, -1)[:, 1].detach()
    one, zero = torch.ones(1), torch.zeros(1)
    ppo_loss(logits, zero, torch.tensor([1]), old, zero, one, zero).total.backward()
    assert logits.grad[0, 1] < 0 < logits.grad[0, 0]


def test_explained_variance_is_one_for_perfect_and_zero_for_constant_predictions():
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns).item() == 1.0
    assert explained_variance(torch.full((3,), 2.0), returns).item() == 0.0
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 5.0])).item() == 0.0


def test_an_episode_that_was_cut_off_is_worth_what_is_expected_after_its_own_last_step():
    rewards, value = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    final, lengths = torch.tensor([3.0, 0.0]), torch.tensor([1, 2])
    advantages, returns = generalized_advantages(rewards, value, 0.5, 0.5, final, lengths)
    # The first has one step: 1 + .5·3 − .5 = 2. The second as by hand above.
    assert advantages.tolist() == [[2.0, 0.0], [1.25, 1.0]]
    assert returns.tolist() == [[2.5, 0.0], [1.75, 2.0]]
