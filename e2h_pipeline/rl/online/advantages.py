"""From rewards to advantages, on padded batches; padding never enters a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-8


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """GAE (Schulman et al. 2016).

    A_t = sum_k (gamma lam)^k delta_{t+k} with delta_t = r_t + gamma V_{t+1} - V_t.

    Args:
        rewards, values, mask: (batch, length). The mask is 1 on completion tokens, which are
            contiguous in a row. The value after the last of them is 0, because the episode ends
            there.

    Returns (advantages, returns), both (batch, length) and 0 outside the mask; returns = advantages
    + values.
    """
    import torch

    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        advantages[:, t] = following
        next_value = values[:, t] * mask[:, t]
    return advantages, (advantages + values) * mask


def group_advantages(rewards: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
    """GRPO with a reward per completion (DeepSeekMath, arXiv 2402.03300, 4.1.2).

    A_it = (R_i - mean(R)) / std(R).

    R_i is the sum of row i's rewards; mean and standard deviation are over the rows of its group
    (TRL and verl estimate the deviation from the group, sqrt(n / (n - 1)) times this one). In a
    group of equal sums all advantages are 0.

    Args:
        rewards, mask: (batch, length); mask is 1 on completion tokens.
        groups: (batch,) integers, the same for completions of the same question.

    Returns (batch, length), 0 outside the mask.
    """
    sums = (rewards * mask).sum(1, keepdim=True)
    written = mask.amax(1, keepdim=True)
    return _group_whiten(sums, written, groups) * mask


def group_step_advantages(rewards: Tensor, ends: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
    """GRPO with a reward per step (DeepSeekMath, 4.1.3).

    A_it = sum of (r - mean) / std over the steps of i that end at t or later; mean and std are over
    all steps of the group.

    As in the paper, advantages add up over the steps to come: each further step that is better than
    the group's mean pays, needed or not. `leave_one_out_advantages` does not see steps.

    Args:
        rewards, mask: (batch, length); mask is 1 on completion tokens.
        ends: (batch, length), 1 on tokens that end a step, whatever its reward; rewards of other
            tokens do not count.
        groups: (batch,) integers, the same for completions of the same question.

    Returns (batch, length), 0 outside the mask and after the last step.
    """
    return rewards_to_go(_group_whiten(rewards, ends * mask, groups)) * mask


def leave_one_out_advantages(rewards: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
    """RLOO (Ahmadian et al. 2024) with a baseline per token (PURE, arXiv 2504.15275, released
    code).

    A_it is the sum over tokens s >= t of r_is - b_i, b_i the rewards of the other rows of the group
    over their tokens.

    A baseline per step would make few, long steps pay; this one does not see steps. At the first
    token of a step it equals PURE's, which subtracts a step's share of b_i where the step ends. A
    verdict on the whole completion belongs to `group_advantages`: spread over tokens it would make
    longer completions worse.

    Args:
        rewards, mask: (batch, length); mask is 1 on completion tokens.
        groups: (batch,) integers, the same for completions of the same question.

    Returns (batch, length), 0 outside the mask and in rows that are alone in their group.
    """
    sums, tokens = (rewards * mask).sum(1), mask.sum(1)
    other_sums, other_tokens = _group_sum(sums, groups) - sums, _group_sum(tokens, groups) - tokens
    baseline = other_sums / other_tokens.clamp(min=1)
    accompanied = (other_tokens > 0).to(mask.dtype)
    return rewards_to_go((rewards - baseline[:, None]) * mask) * mask * accompanied[:, None]


def rewards_to_go(rewards: Tensor) -> Tensor:
    """Sum of the rewards from each token on, (batch, length)."""
    return rewards.flip(1).cumsum(1).flip(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the mask, 0 outside it.

    The variance is that of the batch, as OpenRLHF has it; verl and TRL estimate it from the batch,
    n - 1 in place of n.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * (variance + _EPSILON).rsqrt() * mask


def _group_whiten(values: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
    """`whiten` within each group: (batch, length) each, groups (batch,)."""
    count = _group_sum(weights.sum(1), groups).clamp(min=1)
    mean = _group_sum((values * weights).sum(1), groups) / count
    centred = (values - mean[:, None]) * weights
    variance = _group_sum((centred**2).sum(1), groups) / count
    return centred * (variance + _EPSILON).rsqrt()[:, None]


def _group_sum(values: Tensor, groups: Tensor) -> Tensor:
    """Sum over the group of each row, (batch,)."""
    _, index = groups.unique(return_inverse=True)
    return values.new_zeros(len(values)).index_add(0, index, values)[index]
