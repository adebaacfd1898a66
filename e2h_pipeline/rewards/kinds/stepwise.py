"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.training.batches import run_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def step_objective(model: PreTrainedModel, batch: Mapping[str, Any], total: Tensor) -> Tensor:
    """Binary cross-entropy at labelled positions."""
    return step_loss(run_model(model, batch).logits, batch["labels"], total)


def step_loss(logits: Tensor, labels: Tensor, total: Tensor | float) -> Tensor:
    """Binary cross-entropy of step labels at step ends (paper section 3.3: a scalar head).

    Args:
        logits: (batch, length, 1) raw scores.
        labels: (batch, length) 1.0 right, 0.0 wrong (soft labels in between are fine), -100 elsewhere.
        total: labelled positions in the optimizer batch.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    chosen = labels != IGNORED
    scores, targets = logits.squeeze(-1)[chosen].float(), labels[chosen].float()
    return binary_cross_entropy_with_logits(scores, targets, reduction="sum") / total
