"""Step-level GRPO: the samples of a question are each other's baseline (arXiv 2402.03300, 4.1).

Each step reward is compared with those of all steps of the question's samples, and a token answers
for the steps that end at it or later (or, `rl.baseline=leave_one_out`, with the mean reward per
token of the other samples). The verdict on the whole completion is compared with the verdicts on
the other completions. The loss is PPO's clipped one on the sum of both, plus kl x the k3 estimate
of KL to the SFT policy (4.1.1). It assumes two samples a question or more, and that samples of one
question are alike enough to be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from e2h_pipeline.recipe import GrpoRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.batches import Batch
    from e2h_pipeline.rl.online.models import Run
    from e2h_pipeline.rl.online.passes import Pass
    from e2h_pipeline.rl.online.protocol import Update
    from e2h_pipeline.rl.rollouts import Rollout

POLICY = "policy"


class Grpo:
    """A policy without a critic."""

    name = "GRPO"
    reads: tuple[str, ...] = ()
    samples = False
    distributed = True

    def train(self, job: RlJob[GrpoRl]) -> dict[str, Any]:
        """See `Algorithm.train`."""
        from e2h_pipeline.rl.online.loop import train_online

        return train_online(self, job)

    def start(self, job: RlJob[GrpoRl]) -> Run[GrpoRl]:
        """See `OnlineAlgorithm.start`.

        Raises:
            ValueError: one sample a question has nothing to be compared with.
        """
        from e2h_pipeline.rl.online.models import Run

        if job.options.samples_per_question < 2:
            raise ValueError("GRPO compares samples of a question: set rl.samples_per_question to 2 or more")
        return Run(job)

    def learn(self, run: Run[GrpoRl], update: Update) -> dict[str, float]:
        """See `OnlineAlgorithm.learn`."""
        from e2h_pipeline.rl.online.optimize import optimize

        advantages = step_level_advantages(update.rollouts, update.batch, run.options.baseline)
        return optimize(run, update, partial(_losses, run, update, advantages), [POLICY])


def _losses(
    run: Run[GrpoRl], update: Update, advantages: Tensor, part: Pass
) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """Clipped loss on group advantages, and KL."""
    from e2h_pipeline.rl.online.advantages import masked_mean
    from e2h_pipeline.rl.online.losses import k3
    from e2h_pipeline.rl.online.optimize import policy_pass

    policy = policy_pass(run, update, part, advantages)
    kl_loss = masked_mean(k3(policy.logprobs, part.of(update.reference)), part.batch.mask)
    metrics = {"policy_loss": policy.loss.item(), "kl_loss": kl_loss.item(), **policy.metrics}
    return {POLICY: policy.loss + update.kl * kl_loss}, metrics


def step_level_advantages(rollouts: Sequence[Rollout], batch: Batch, baseline: str = "group") -> Tensor:
    """(batch, length): advantages of the step rewards plus those of the terminal rewards.

    Args:
        baseline: "group", or "leave_one_out".
    """
    from e2h_pipeline.rl.batches import group_ids, step_ends, terminal_rewards
    from e2h_pipeline.rl.online.advantages import (
        group_advantages,
        group_step_advantages,
        leave_one_out_advantages,
    )

    groups = group_ids(rollouts, batch.rewards.device)
    terminal = terminal_rewards(rollouts, batch)
    rewards = batch.rewards - terminal
    if baseline == "leave_one_out":
        steps = leave_one_out_advantages(rewards, batch.mask, groups)
    else:
        steps = group_step_advantages(rewards, step_ends(rollouts, batch), batch.mask, groups)
    return steps + group_advantages(terminal, batch.mask, groups)
