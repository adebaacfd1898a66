"""Step-level GRPO: no critic, the samples of a question are each other's baseline (DeepSeekMath, arXiv 2402.03300, 4.1).

Step rewards are compared with all steps of the question's samples (or, `rl.baseline=leave_one_out`, with the mean reward
per token of its other samples), and a token answers for the steps that end at it or later. The verdict on the whole
completion is compared with the other completions'. KL to the starting policy is part of the loss, by the k3 estimator
exp(d) - d - 1 with d = log reference - log policy (4.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from e2h_pipeline.rl.metrics import means, weighted
from e2h_pipeline.rl.online.advantages import (
    group_advantages,
    group_step_advantages,
    leave_one_out_advantages,
    masked_mean,
)
from e2h_pipeline.rl.online.loop import Update
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import minibatches, passes, some_rows, token_logprobs
from e2h_pipeline.rl.online.ppo import clipped_policy_loss
from e2h_pipeline.rl.rollouts import Batch, Rollout, group_ids, step_ends, terminal_rewards

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Rl


class Grpo:
    """A policy alone."""

    name = "GRPO"

    def start(self, policy: Path, evaluator: Path, options: Rl) -> Run:
        """See `Algorithm.start`.

        Raises:
            ValueError: one sample a question has nothing to be compared with.
        """
        if options.samples_per_question < 2:
            raise ValueError("GRPO compares samples of a question: set rl.samples_per_question to 2 or more")
        return Run(policy, evaluator, options)

    def learn(self, run: Run, update: Update) -> dict[str, float]:
        """See `Algorithm.learn`: clipped loss on group advantages, and KL."""
        options, batch = run.options, update.batch
        advantages = step_level_advantages(update.rollouts, batch, options.baseline)
        steps = []
        for minibatch in minibatches(batch, options, update.seed, update.number):
            found = []
            for rows, share in passes(batch, minibatch, options):
                part = some_rows(batch, rows)
                length = part.ids.shape[1]
                was, base = update.old[rows, :length], update.reference[rows, :length]
                logprobs, entropy = token_logprobs(run.policy, part, options.temperature)
                policy_loss = clipped_policy_loss(
                    logprobs, was, advantages[rows, :length], part.mask, options.clip
                )
                kl_loss = masked_mean(k3(logprobs, base), part.mask)
                (share * (policy_loss + update.kl * kl_loss)).backward()
                outside = ((logprobs - was).exp() - 1).abs() > options.clip
                metrics = {
                    "policy_loss": policy_loss.item(),
                    "kl_loss": kl_loss.item(),
                    "entropy": masked_mean(entropy, part.mask).item(),
                    "clip_fraction": masked_mean(outside.float(), part.mask).item(),
                }
                found.append((share, metrics))
            steps.append({"gradient_norm": run.step("policy").item(), **weighted(found)})
        return means(steps)


def step_level_advantages(rollouts: Sequence[Rollout], batch: Batch, baseline: str = "group") -> Tensor:
    """(batch, length): advantages of step rewards, and those of what the whole completion got, added.

    Args:
        baseline: "group", or "leave_one_out".
    """
    groups = group_ids(rollouts, batch.rewards.device)
    terminal = terminal_rewards(rollouts, batch)
    rewards = batch.rewards - terminal
    if baseline == "leave_one_out":
        steps = leave_one_out_advantages(rewards, batch.mask, groups)
    else:
        steps = group_step_advantages(rewards, step_ends(rollouts, batch), batch.mask, groups)
    return steps + group_advantages(terminal, batch.mask, groups)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) at each token; never negative."""
    difference = reference - logprobs
    return difference.exp() - difference - 1
