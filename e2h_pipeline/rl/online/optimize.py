"""The optimizer steps of one rollout batch, which PPO and GRPO share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from e2h_pipeline.rl.metrics import means, weighted
from e2h_pipeline.rl.online.advantages import masked_mean
from e2h_pipeline.rl.online.losses import clip_fraction, clipped_policy_loss
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import Pass, minibatches, passes, token_logprobs
from e2h_pipeline.rl.online.protocol import Update

Losses = Callable[[Pass], tuple[Mapping[str, Tensor], Mapping[str, float]]]
"""Loss of each model that learns, a mean over a pass's completion tokens, and the pass's
metrics."""


def optimize(run: Run[Any], update: Update, losses: Losses, models: Sequence[str]) -> dict[str, float]:
    """Step through the minibatches of a rollout batch, each model with its own loss.

    Args:
        models: names of the models of the run that learn.

    Returns:
        Means over the optimizer steps: `gradient_norm`, a sum over models, and the metrics of
        `losses`.
    """
    steps = []
    for minibatch in minibatches(update.batch, run.options, update.seed, update.number):
        found = []
        for part in passes(update.batch, minibatch, run.options):
            terms, metrics = losses(part)
            for name in models:
                with run.using(name):
                    (part.share * terms[name]).backward()
            found.append((part.share, metrics))
        norms = [run.step(name) for name in models]
        steps.append({"gradient_norm": sum(norms[1:], norms[0]).item(), **weighted(found)})
    return means(steps)


@dataclass(frozen=True)
class PolicyPass:
    """Results of a forward pass of the policy.

    Attributes:
        logprobs: (batch, length) of the completion tokens.
        loss: the clipped surrogate.
        metrics: entropy and clip fraction.
    """

    logprobs: Tensor
    loss: Tensor
    metrics: dict[str, float]


def policy_pass(run: Run[Any], update: Update, part: Pass, advantages: Tensor) -> PolicyPass:
    """The policy's forward pass and its clipped loss on advantages, (whole batch, length)."""
    options, mask, old = run.options, part.batch.mask, part.of(update.old)
    logprobs, entropy = token_logprobs(run.policy, part.batch, options.temperature)
    loss = clipped_policy_loss(logprobs, old, part.of(advantages), mask, options.clip)
    metrics = {
        "entropy": masked_mean(entropy, mask).item(),
        "clip_fraction": clip_fraction(logprobs, old, mask, options.clip).item(),
    }
    return PolicyPass(logprobs, loss, metrics)
