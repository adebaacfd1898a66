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


def pairwise_objective(model: PreTrainedModel, batch: Mapping[str, Any], total: Tensor) -> Tensor:
    """Right above wrong, at the last token."""
    return pairwise_loss(run_model(model, batch).logits, batch["labels"], total)


def pairwise_loss(logits: Tensor, labels: Tensor, total: Tensor | float) -> Tensor:
    """Bradley-Terry: -log sigmoid(score of the right solution - score of the wrong one), mean over pairs.

    Args:
        logits: (batch, length, 1) raw scores.
        labels: (batch, length) 1.0 where a right solution is scored, 0.0 where a wrong one is, -100 elsewhere.
            In reading order labels come as right, wrong, right, wrong: both of a pair are in the micro-batch.
        total: labelled positions in the optimizer batch, two for each pair.

    Raises:
        ValueError: labels do not alternate.
    """
    from torch.nn.functional import logsigmoid

    chosen = labels != IGNORED
    if not labels[chosen][0::2].eq(1).all() or not labels[chosen][1::2].eq(0).all() or chosen.sum() % 2:
        raise ValueError(
            "pairwise labels must come as right, wrong, right, wrong: rows of a pair were parted"
        )
    scores = logits.squeeze(-1)[chosen].float()
    return -logsigmoid(scores[0::2] - scores[1::2]).sum() / (total / 2)
