"""The protocol of online algorithms: models, and learning from a batch of rewarded rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from e2h_pipeline.recipe import OnlineRl

if TYPE_CHECKING:
    from torch import Tensor

    from e2h_pipeline.rl.algorithms import RlJob
    from e2h_pipeline.rl.batches import Batch
    from e2h_pipeline.rl.online.models import Run
    from e2h_pipeline.rl.rollouts import Rollout

OptionsOf = TypeVar("OptionsOf", bound=OnlineRl)


@dataclass(frozen=True)
class Update:
    """One batch of rewarded rollouts, which an algorithm learns from.

    Attributes:
        number: updates before this one.
        rollouts: in the order of the batch's rows.
        old: (batch, length) log-probabilities of the tokens under the policy before this update.
        reference: the same under the SFT policy.
        kl: coefficient of the KL to the SFT policy.
        sampler: (batch, length) log-probabilities as the engine that drew has them, which may be
            those of older weights (`rl.lag`); None where they are `old`. A loss should weight tokens
            for the difference, as `losses.importance_weights` does.
    """

    number: int
    seed: int
    rollouts: Sequence[Rollout]
    batch: Batch
    old: Tensor
    reference: Tensor
    kl: float
    sampler: Tensor | None = None


class OnlineAlgorithm(Protocol[OptionsOf]):
    """An algorithm that `loop.train_online` runs.

    Attributes:
        name: its usual spelling.
    """

    name: str

    def start(self, job: RlJob[OptionsOf]) -> Run[OptionsOf]:
        """The models of a run and their optimizers."""
        ...

    def learn(self, run: Run[OptionsOf], update: Update) -> dict[str, float]:
        """The optimizer steps of one rollout batch.

        Returns:
            Metrics, `gradient_norm` among them: one that is not finite stops the run.
        """
        ...
