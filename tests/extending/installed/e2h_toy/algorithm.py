"""An RL algorithm: REINFORCE with the batch mean as baseline (Williams 1992), on step rewards.

    loss = - mean over tokens of (reward to go - mean reward to go) x log policy

It assumes that one baseline serves all questions. It learns from each batch of rollouts at once, so
it builds on the online loop, which draws, rewards, guards, validates and saves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from e2h_pipeline.recipe import OnlineRl

if TYPE_CHECKING:
    from torch import Tensor

    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.online.models import Run
    from e2h_pipeline.rl.online.passes import Pass
    from e2h_pipeline.rl.online.protocol import Update


class ReinforceRl(OnlineRl):
    """Its fields in a recipe: `rl: {algorithm: reinforce, discount: 0.9, ...}`."""

    discount: float = Field(1.0, gt=0, le=1, description="Discount per token of the reward to go.")


class Reinforce:
    """The algorithm `reinforce`: a policy alone."""

    Options = ReinforceRl
    name = "REINFORCE"
    reads: tuple[str, ...] = ()
    samples = False
    distributed = True

    def train(self, job: RlJob[ReinforceRl]) -> dict[str, Any]:
        """Run the online loop."""
        from e2h_pipeline.rl.online.loop import train_online

        return train_online(self, job)

    def start(self, job: RlJob[ReinforceRl]) -> Run[ReinforceRl]:
        """The policy and its optimizer."""
        from e2h_pipeline.rl.online.models import Run

        return Run(job)

    def learn(self, run: Run[ReinforceRl], update: Update) -> dict[str, float]:
        """One batch of rewarded rollouts."""
        from e2h_pipeline.rl.online.optimize import optimize

        advantages = rewards_to_go(update.batch.rewards, update.batch.mask, run.options.discount)
        return optimize(run, update, partial(_losses, run, advantages), ["policy"])


def rewards_to_go(rewards: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Discounted rewards from each token on, less their mean: (batch, length)."""
    import torch

    from e2h_pipeline.rl.online.advantages import masked_mean

    found = torch.zeros_like(rewards)
    later = torch.zeros_like(rewards[:, 0])
    for position in reversed(range(rewards.shape[1])):
        later = rewards[:, position] + discount * later
        found[:, position] = later
    return (found - masked_mean(found, mask)) * mask


def _losses(
    run: Run[ReinforceRl], advantages: Tensor, part: Pass
) -> tuple[dict[str, Tensor], dict[str, float]]:
    from e2h_pipeline.rl.online.advantages import masked_mean
    from e2h_pipeline.rl.online.passes import token_logprobs

    logprobs, entropy = token_logprobs(run.policy, part.batch, run.options.temperature)
    loss = -masked_mean(part.of(advantages) * logprobs, part.batch.mask)
    return {"policy": loss}, {
        "policy_loss": loss.item(),
        "entropy": masked_mean(entropy, part.batch.mask).item(),
    }
