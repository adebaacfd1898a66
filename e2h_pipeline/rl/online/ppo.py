"""PPO on step rewards of the easy evaluator; gold answers of easy questions only (paper 4.2, C.3).

The reward of token t is r_t - kl x (log policy_t - log SFT policy_t), r_t the step and terminal
rewards. Advantages are GAE with a critic that starts as the evaluator, whitened over the batch.
Policy and critic learn by PPO's clipped losses (Schulman et al. 2017). It assumes that the
evaluator's features also tell how well a solution will end.

Differences to the released code, and why: whitening and losses are masked, so padding has no
effect. The end-of-sequence token is part of the completion and gets its gradient. KL is the plain
k1 estimator. Checkpoints are chosen on easy validation, never on hard answers. The answer block is
scored and rewarded as the last step (there, only the text before `# Answer`), because the evaluator
here is trained on it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from e2h_pipeline.recipe import PpoRl
    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.online.models import Run
    from e2h_pipeline.rl.online.passes import Pass
    from e2h_pipeline.rl.online.protocol import Update

CRITIC, POLICY = "critic", "policy"


class Ppo:
    """Policy and critic."""

    name = "PPO"
    reads: tuple[str, ...] = ()
    samples = False
    distributed = True

    def train(self, job: RlJob[PpoRl]) -> dict[str, Any]:
        """See `Algorithm.train`."""
        from e2h_pipeline.rl.online.loop import train_online

        return train_online(self, job)

    def start(self, job: RlJob[PpoRl]) -> Run[PpoRl]:
        """See `OnlineAlgorithm.start`."""
        from e2h_pipeline.rl.online.critic import start_critic
        from e2h_pipeline.rl.online.models import Run

        run = Run(job)
        run.train(CRITIC, start_critic(run, job), job.options.value_learning_rate)
        return run

    def learn(self, run: Run[PpoRl], update: Update) -> dict[str, float]:
        """See `OnlineAlgorithm.learn`. The first `value_warmup_updates` train the critic alone."""
        from e2h_pipeline.rl.online.losses import explained_variance
        from e2h_pipeline.rl.online.optimize import optimize

        targets = _targets(run, update)
        warming_up = update.number < run.options.value_warmup_updates
        models = [CRITIC] if warming_up else [CRITIC, POLICY]
        metrics = optimize(run, update, partial(_losses, run, update, targets), models)
        explained = explained_variance(targets.values, targets.returns, update.batch.mask)
        return metrics | {"explained_variance": explained.item()}


@dataclass(frozen=True)
class _Targets:
    """Learning targets of a rollout batch, (batch, length) each.

    Attributes:
        values: the critic's before the update.
        returns: targets of the critic.
        advantages: whitened.
    """

    values: Tensor
    returns: Tensor
    advantages: Tensor


def _targets(run: Run[PpoRl], update: Update) -> _Targets:
    """GAE over step rewards less KL."""
    from e2h_pipeline.rl.online.advantages import generalized_advantages, whiten
    from e2h_pipeline.rl.online.passes import by_rows, token_values

    options, batch = run.options, update.batch
    with run.measuring(CRITIC) as critic:
        values = by_rows(batch, options, lambda part: token_values(critic, part))
    rewards = batch.rewards - update.kl * (update.old - update.reference) * batch.mask
    advantages, returns = generalized_advantages(
        rewards, values * batch.mask, batch.mask, options.gamma, options.lam
    )
    return _Targets(values, returns, whiten(advantages, batch.mask))


def _losses(
    run: Run[PpoRl], update: Update, targets: _Targets, part: Pass
) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """Clipped losses of policy and critic."""
    from e2h_pipeline.rl.online.losses import clipped_value_loss
    from e2h_pipeline.rl.online.optimize import policy_pass
    from e2h_pipeline.rl.online.passes import token_values

    policy = policy_pass(run, update, part, targets.advantages)
    with run.using(CRITIC) as critic:
        values = token_values(critic, part.batch)
    value_loss = clipped_value_loss(
        values,
        part.of(targets.values),
        part.of(targets.returns),
        part.batch.mask,
        run.options.value_clip,
    )
    metrics = {"policy_loss": policy.loss.item(), "value_loss": value_loss.item(), **policy.metrics}
    return {CRITIC: value_loss, POLICY: policy.loss}, metrics
