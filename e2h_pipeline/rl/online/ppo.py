"""PPO on step rewards of the easy evaluator, all questions, gold answers of easy ones only (paper 4.2, C.3).

What differs from the released code, and why: whitening and losses are masked (padding has no say),
the end-of-sequence token is part of the completion and gets its gradient, KL is the plain k1 estimator
taken off the reward, checkpoints are chosen on easy validation, never on hard answers, and the answer block is scored and
rewarded as the last step (there, only what stands before `# Answer`): the evaluator here is trained on it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from e2h_pipeline.rl.metrics import means, weighted
from e2h_pipeline.rl.online.advantages import generalized_advantages, masked_mean, whiten
from e2h_pipeline.rl.online.loop import Update
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import (
    by_rows,
    distinct_rows,
    minibatches,
    passes,
    shift,
    some_rows,
    token_logprobs,
)
from e2h_pipeline.rl.rollouts import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import Rl


class Ppo:
    """Policy and critic, which starts as the evaluator with a head of zeros."""

    name = "PPO"

    def start(self, policy: Path, evaluator: Path, options: Rl) -> Run:
        """See `Algorithm.start`."""
        from e2h_pipeline.models.load import load_evaluator

        run = Run(policy, evaluator, options)
        critic, _ = load_evaluator(evaluator)  # the paper starts the critic from the reward model
        for parameter in critic.score.parameters():  # weight, and bias where the head has one
            parameter.data.zero_()
        run.train("critic", critic, options.value_learning_rate)
        return run

    def learn(self, run: Run, update: Update) -> dict[str, float]:
        """See `Algorithm.learn`: GAE over step rewards less KL, clipped losses of policy and critic."""
        options, critic, batch, old = run.options, run.trained["critic"], update.batch, update.old
        values = by_rows(batch, options, lambda part: token_values(critic, part))
        rewards = batch.rewards - update.kl * (old - update.reference) * batch.mask
        advantages, returns = generalized_advantages(
            rewards, values * batch.mask, batch.mask, options.gamma, options.lam
        )
        whitened = whiten(advantages, batch.mask)
        learn_policy = update.number >= options.value_warmup_updates
        steps = []
        for minibatch in minibatches(batch, options, update.seed, update.number):
            found = []
            for rows, share in passes(batch, minibatch, options):
                part = some_rows(batch, rows)
                length = part.ids.shape[1]
                mask, was = part.mask, old[rows, :length]
                logprobs, entropy = token_logprobs(run.policy, part, options.temperature)
                policy_loss = clipped_policy_loss(logprobs, was, whitened[rows, :length], mask, options.clip)
                value_loss = clipped_value_loss(
                    token_values(critic, part),
                    values[rows, :length],
                    returns[rows, :length],
                    mask,
                    options.value_clip,
                )
                (share * value_loss).backward()
                if learn_policy:
                    (share * policy_loss).backward()
                outside = ((logprobs - was).exp() - 1).abs() > options.clip
                metrics = {
                    "policy_loss": policy_loss.item(),
                    "value_loss": value_loss.item(),
                    "entropy": masked_mean(entropy, mask).item(),
                    "clip_fraction": masked_mean(outside.float(), mask).item(),
                }
                found.append((share, metrics))
            norm = run.step("critic")
            if learn_policy:
                norm = norm + run.step("policy")
            steps.append({"gradient_norm": norm.item(), **weighted(found)})
        unexplained = masked_mean((returns - values) ** 2, batch.mask)
        spread = masked_mean((returns - masked_mean(returns, batch.mask)) ** 2, batch.mask)
        explained = {"explained_variance": (1 - unexplained / spread.clamp(min=1e-8)).item()}
        return means(steps) | explained


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), a mean over completion tokens.

    All arguments are (batch, length); `old` are the log-probabilities the rollouts were drawn with.
    """
    ratio = (logprobs - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, bounded * advantages), mask)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half the squared error, the worse of clipped and unclipped prediction; (batch, length) each."""
    bounded = old + (values - old).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (bounded - returns) ** 2), mask)


def token_values(critic: PreTrainedModel, batch: Batch) -> Tensor:
    """Value of the state each token is chosen in: (batch, length), position t read before token t."""
    (ids, attention), of = distinct_rows(batch)
    values = critic(input_ids=ids, attention_mask=attention, use_cache=False).logits.squeeze(-1).float()
    return shift(values[:, :-1])[of]
