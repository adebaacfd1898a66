"""Losses of online algorithms: pure functions of (batch, length), means over completion tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from e2h_pipeline.rl.online.advantages import masked_mean


def clipped_policy_loss(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    weights: Tensor | None = None,
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), a mean over completion tokens.

    All tensors are (batch, length); `old` are the log-probabilities of the policy that drew the
    rollouts, `weights` those of `importance_weights`.
    """
    ratio = (logprobs - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    surrogate = torch.minimum(ratio * advantages, bounded * advantages)
    return -masked_mean(surrogate if weights is None else weights * surrogate, mask)


def importance_weights(old: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Truncated importance weight of each token, min(p_trainer / p_sampler, cap).

    The engine that draws computes log-probabilities by other kernels than the trainer, or in
    another number format, so its tokens are of a slightly other distribution (Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training").

    Args:
        old, sampler: (batch, length) log-probabilities of the drawn tokens by the trainer's policy
            before the update, and by the engine.
    """
    return (old - sampler).exp().clamp(max=cap)


def sampler_gap(old: Tensor, sampler: Tensor, mask: Tensor) -> dict[str, float]:
    """Mean and maximum over completion tokens of |log p_trainer - log p_sampler|; (batch, length)
    each."""
    gap = (old - sampler).abs() * mask
    return {"sampler_gap": masked_mean(gap, mask).item(), "sampler_gap_max": gap.max().item()}


def clip_fraction(logprobs: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Share of completion tokens with a ratio outside the clip range; (batch, length) each."""
    outside = ((logprobs - old).exp() - 1).abs() > clip
    return masked_mean(outside.float(), mask)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, the worse of clipped and free prediction; (batch, length) each."""
    bounded = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (bounded - returns) ** 2), mask)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) at each token; never negative.

    exp(d) - d - 1 with d = log reference - log policy.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - mean squared error / variance of the returns, over completion tokens; (batch, length)."""
    unexplained = masked_mean((returns - values) ** 2, mask)
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    return 1 - unexplained / spread.clamp(min=1e-8)
