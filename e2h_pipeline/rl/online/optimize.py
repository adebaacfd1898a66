"""The optimizer steps of one rollout batch, which PPO and GRPO share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from e2h_pipeline.rl.metrics import weighted
from e2h_pipeline.rl.online.advantages import masked_mean
from e2h_pipeline.rl.online.losses import clip_fraction, clipped_policy_loss, importance_weights
from e2h_pipeline.rl.online.models import Run
from e2h_pipeline.rl.online.passes import Pass, blank_pass, minibatches, passes, token_logprobs
from e2h_pipeline.rl.online.protocol import Update
from e2h_pipeline.rl.ranks import gather, largest, rank
from e2h_pipeline.training.trainer import process_count

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
    norms, measured = [], []
    for minibatch in minibatches(update.batch, run.options, update.seed, update.number):
        run.engine.require_alive()
        for part in _even(run, update, minibatch):
            terms, metrics = losses(part)
            for name in models:
                with run.using(name):
                    (part.share * terms[name]).backward()
            measured.append((part.share, metrics))
        norms.append(sum(run.step(name).item() for name in models))
    return {"gradient_norm": sum(norms) / len(norms), **_means(measured, len(norms))}


def _even(run: Run[Any], update: Update, minibatch: Tensor) -> list[Pass]:
    """This rank's passes; where models are sharded, equally many on each rank.

    A pass of a sharded model is done by all ranks together, each with its own rows.
    """
    own = list(passes(update.batch, minibatch, run.options))
    if not run.sharded:
        return own
    return own + [blank_pass(update.batch, minibatch)] * (largest(len(own)) - len(own))


def _means(measured: Sequence[tuple[float, Mapping[str, float]]], steps: int) -> dict[str, float]:
    """Means over the optimizer steps, from the shares and metrics of this rank's passes."""
    ranks = gather({rank(): weighted(measured)}, process_count())
    sums = weighted((1.0, own) for own in ranks)
    return {name: total / steps for name, total in sums.items()}


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
    weights = None
    if update.sampler is not None:
        weights = importance_weights(old, part.of(update.sampler), options.importance_cap)
    loss = clipped_policy_loss(logprobs, old, part.of(advantages), mask, options.clip, weights)
    metrics = {
        "entropy": masked_mean(entropy, mask).item(),
        "clip_fraction": clip_fraction(logprobs, old, mask, options.clip).item(),
    }
    return PolicyPass(logprobs, loss, metrics)
