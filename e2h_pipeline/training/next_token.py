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
    return token_loss(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), total)


def token_loss(logits: Tensor, tokens: Tensor, total: Tensor | float) -> Tensor:
    """Cross-entropy of tokens given the logits that predict them.

    Args:
        logits: (positions, vocabulary).
        tokens: (positions,) token ids, -100 where no loss is wanted.
        total: labelled tokens in the optimizer batch.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), tokens, ignore_index=IGNORED, reduction="sum") / total
