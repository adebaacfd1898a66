"""Losses as pure functions of tensors: formula, shapes and source stand in each docstring.

All take a `total`, the number of supervised positions in the whole optimizer batch, and return a
sum over their positions divided by it: micro-batches and processes then add up to the same mean,
whatever their lengths. Positions with label -100 do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


def next_token_loss(logits: Tensor, labels: Tensor, total: Tensor | float) -> Tensor:
    """Cross-entropy of each labelled token given what stands before it.

    Args:
        logits: (batch, length, vocabulary); position t predicts token t + 1.
        labels: (batch, length) token ids, -100 where no loss is wanted.
        total: labelled tokens in the optimizer batch.
    """
    from torch.nn.functional import cross_entropy

    flat = logits[:, :-1].flatten(0, 1).float()
    return cross_entropy(flat, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum") / total


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
