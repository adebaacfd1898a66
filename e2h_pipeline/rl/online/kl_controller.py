"""The coefficient of KL to the SFT policy: fixed, or moved after each update towards a target KL.

Ziegler et al. 2019 (arXiv 1909.08593, section 2.2), in the form of TRL's first PPO trainer and of
OpenRLHF: a proportional controller in log space, which no single update can move far. They measure
KL per completion; here KL and its target are per token. The coefficient is the only state, and is
part of a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2h_pipeline.recipe import OnlineRl

_MOST_ERROR = 0.2  # the paper's


def next_coefficient(coefficient: float, kl: float, rollouts: int, options: OnlineRl) -> float:
    """coefficient x (1 + e x rollouts / kl_horizon), e = kl / kl_target - 1 within [-0.2, 0.2].

    Args:
        kl: mean per token of the update, log policy - log SFT policy.
        rollouts: completions of the update.

    Returns:
        The coefficient of the next update; the same where the recipe sets no target.
    """
    if options.kl_target is None:
        return coefficient
    error = min(max(kl / options.kl_target - 1, -_MOST_ERROR), _MOST_ERROR)
    return coefficient * (1 + error * rollouts / options.kl_horizon)
