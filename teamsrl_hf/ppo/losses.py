"""The mathematics of PPO on tensors: advantages and losses, knowing nothing of text, models or the training loop.

Shapes: B episodes, T steps, K operations, N transitions of a minibatch (flattened from B × T).

| detail | here | source |
|---|---|---|
| generalized advantage estimation | `generalized_advantages` | Schulman et al. 2016, eq. 16 |
| clipped policy loss | `policy_loss` | Schulman et al. 2017, eq. 7 |
| clipped value loss, halved | `value_loss` | OpenAI baselines `ppo2` |
| advantages whitened over a rollout | `whiten` | OpenAI baselines `ppo2`, there over minibatches |
| … but never beyond the spread of rewards | `reward_spread` | ours: a constant reward teaches nothing |
| entropy of the categorical policy as a bonus | `ppo_loss` | Schulman et al. 2017, eq. 9 |
| KL from the policy that acted, estimated by k3 | `ppo_loss` | Schulman 2020, "Approximating KL divergence" |
| KL from a reference policy as a penalty | `divergence` | Ziegler et al. 2019; summed exactly, as K is small |
| a rollout is left once KL passes 1.5 × `target_kl` | `ppo_trainer` | OpenAI Spinning Up; stable-baselines3 |
| value bootstrapped where an episode is cut off | `generalized_advantages` | Pardo et al. 2018 |
| actions that are not allowed get probability 0 | `policy.MASKED` | Huang and Ontañón 2022 |
| orthogonal initial weights, operation head × 0.01 | `policy` | OpenAI baselines; Andrychowicz et al. 2021 |
| learning rate falls to 0, gradient norm ≤ 0.5, no dropout | `ppo_config` | OpenAI baselines; TRL PPO |
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import mse_loss


@dataclass(frozen=True)
class PPOLosses:
    """`total` is minimised; the rest is logged. All are scalars of shape ().

    Attributes:
        policy_loss: Clipped surrogate, see `policy_loss`.
        value_loss: See `value_loss`.
        entropy: Mean entropy of the policy, in nats.
        approx_kl: Estimate of the divergence from the policy that acted, in nats; k3 of Schulman 2020.
        clip_ratio: Share of transitions whose ratio left the clip range.
        kl: Exact divergence from the reference policy, in nats; 0 without one.
    """

    total: torch.Tensor
    policy_loss: torch.Tensor
    value_loss: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor
    clip_ratio: torch.Tensor
    kl: torch.Tensor


def generalized_advantages(
    rewards: torch.Tensor,
    value: torch.Tensor,
    gamma: float,
    lam: float,
    final_value: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of whole episodes.

    Args:
        rewards: (B, T). Episodes that ended early are padded with zeros, here and in `value`.
        value: (B, T), the value head's estimate before each step.
        final_value: (B,), its estimate after the last step, for episodes that were cut off and might have gone on.
            Left out, or 0, where the end is a true end, as it is when the step number is part of the state.
        lengths: (B,), steps of each episode; T if left out.

    Returns:
        Advantages (B, T), and returns (B, T) = advantages + value, the value head's targets; 0 in the padding.
    """
    advantages = torch.zeros_like(rewards)
    running = following = torch.zeros_like(rewards[:, 0])
    final_value = running if final_value is None else final_value
    steps = rewards.shape[1]
    lengths = torch.full(running.shape, steps) if lengths is None else lengths
    for t in reversed(range(steps)):
        following = torch.where(lengths == t + 1, final_value, following)
        delta = rewards[:, t] + gamma * following - value[:, t]
        running = torch.where(t < lengths, delta + gamma * lam * running, 0.0)
        advantages[:, t], following = running, value[:, t]
    return advantages, advantages + value


def whiten(advantages: torch.Tensor, everyone: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Advantages shifted to mean 0 and scaled to deviation 1, or to less where they vary more than rewards do.

    Args:
        advantages: Those of this process, of any shape.
        everyone: Those of all processes, which give mean and deviation.
        spread: `reward_spread` of the same rollout.
    """
    mean, std = everyone.mean(), everyone.std(correction=0)
    return (advantages - mean) / (std + 1e-6) * (spread / (std + 1e-6)).clamp(max=1.0)


def reward_spread(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """How far discounted sums of rewards (B, T) lie from their mean at the same step: a deviation, ().

    Advantages that vary more than this vary by the value head's errors, not by what was done. Where it is 0, as with
    the saturated reward of the official code, there is nothing to learn, and whitening must not blow noise up.
    """
    sums, _ = generalized_advantages(rewards, torch.zeros_like(rewards), gamma, 1.0)
    spread = (sums - sums.mean(0)).pow(2).mean().sqrt()
    # Rounding alone must not count as spread: an optimizer that scales gradients would make much of it.
    return spread if spread > 1e-5 * sums.abs().max() else torch.zeros_like(spread)


def policy_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, cliprange: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipped surrogate loss () and the share of transitions whose ratio was clipped (), from inputs of shape (N,)."""
    ratio = torch.exp(logprobs - old_logprobs)
    # The smaller of both products is found outside the graph: the clipped one has no gradient, and a graph half as
    # large is walked back in two thirds of the time.
    moving = ratio.detach()
    clipped = moving.clamp(1 - cliprange, 1 + cliprange)
    loss = -(advantages * torch.where(advantages * moving <= advantages * clipped, ratio, clipped)).mean()
    return loss, (moving != clipped).float().mean()


def value_loss(value: torch.Tensor, old_value: torch.Tensor, returns: torch.Tensor, cliprange: float) -> torch.Tensor:
    """Half the squared error (), the larger of plain and clipped for each transition; inputs (N,)."""
    moving = value.detach()  # As in `policy_loss`.
    clipped = moving.clamp(old_value - cliprange, old_value + cliprange)
    plain = (moving - returns).abs() >= (clipped - returns).abs()
    return 0.5 * mse_loss(torch.where(plain, value, clipped), returns)


def ppo_loss(
    logits: torch.Tensor,
    value: torch.Tensor,
    actions: torch.Tensor,
    old_logprobs: torch.Tensor,
    old_value: torch.Tensor,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    ref_logprobs: torch.Tensor | None = None,
    *,
    cliprange: float = 0.2,
    cliprange_value: float = 0.2,
    vf_coef: float = 0.5,
    entropy_coef: float = 0.01,
    kl_coef: float = 0.0,
) -> PPOLosses:
    """The PPO objective of one minibatch: `logits` and `ref_logprobs` (N, K), everything else (N,)."""
    log_softmax = torch.log_softmax(logits.float(), dim=-1)
    logprobs = log_softmax.gather(-1, actions[:, None])[:, 0]
    entropy = -(log_softmax.exp() * log_softmax).sum(-1).mean()
    surrogate, clip_ratio = policy_loss(logprobs, old_logprobs, advantages, cliprange)
    fit = value_loss(value.float(), old_value, returns, cliprange_value)
    total = surrogate + vf_coef * fit - entropy_coef * entropy
    kl = torch.zeros_like(fit) if ref_logprobs is None else divergence(log_softmax, ref_logprobs)
    if ref_logprobs is not None:
        total = total + kl_coef * kl
    log_ratio = (logprobs - old_logprobs).detach()
    return PPOLosses(
        total=total,
        policy_loss=surrogate.detach(),
        value_loss=fit.detach(),
        entropy=entropy.detach(),
        approx_kl=(log_ratio.exp() - 1 - log_ratio).mean(),
        clip_ratio=clip_ratio,
        kl=kl.detach(),
    )


def divergence(logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of one categorical policy from another, (); both (N, K)."""
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1).mean()


def discounted(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """Discounted sum of the rewards from each step to the end, (B, T), of rewards (B, T).

    >>> discounted(torch.tensor([[1.0, 0.0, 4.0]]), 0.5)
    tensor([[2., 2., 4.]])
    """
    returns = rewards.clone()
    for t in reversed(range(rewards.shape[1] - 1)):
        returns[:, t] += gamma * returns[:, t + 1]
    return returns


def explained_variance(value: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """1 − Var(returns − value) / Var(returns), (); 0 where the returns do not vary. Inputs of any one shape."""
    variance = returns.var(correction=0)
    if variance < 1e-12:
        return torch.zeros(())
    return 1 - (returns - value).var(correction=0) / variance
