"""Binary cross-entropy at labelled positions: the loss of step scorers and of outcome models (paper
section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.training.batches import WEIGHTS, run_model
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.training.trainer import TrainingStep


def step_objective(model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
    """`step_loss` of a batch."""
    return step_loss(run_model(model, batch).logits, batch["labels"], step.total, batch.get(WEIGHTS))


def step_loss(logits: Tensor, labels: Tensor, total: Tensor | float, weights: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy of labels under a scalar head.

    Args:
        logits: (batch, length, 1) raw scores.
        labels: (batch, length) 1.0 right, 0.0 wrong (soft labels in between are fine), -100
            elsewhere.
        total: labelled positions in the optimizer batch; the sum of their weights where they have
            weights.
        weights: (batch, length) weight of each label; all 1 where None.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    chosen = labels != IGNORED
    scores, targets = logits.squeeze(-1)[chosen].float(), labels[chosen].float()
    weight = None if weights is None else weights[chosen]
    return binary_cross_entropy_with_logits(scores, targets, weight=weight, reduction="sum") / total
