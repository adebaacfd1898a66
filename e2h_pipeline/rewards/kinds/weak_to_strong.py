"""Learning from a weaker supervisor: the confidence loss of Burns et al. 2023 (arXiv 2312.09390).

    L = (1 - a) CE(weak, f) + a CE(hard, f),   hard = 1 where f > threshold, else 0, without a gradient

which is CE against the mixed target (1 - a) weak + a hard. With a = 0 it is plain training on weak labels.
The student may so keep an opinion of its own where the supervisor is wrong. The paper's threshold
splits each batch in halves, for balanced classes; for unbalanced ones its code takes the share of
weak positives instead, and so does `balanced_threshold` when it is given that share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def confidence_loss(
    logits: Tensor, weak: Tensor, weight: float, threshold: Tensor | float, total: Tensor | float
) -> Tensor:
    """Cross-entropy with the weak labels mixed with the student's own hardened opinion.

    Args:
        logits: (n,) raw scores of the labelled positions.
        weak: (n,) the supervisor's probabilities in [0, 1].
        weight: the share a of the own opinion, in [0, 1].
        threshold: probability above which an opinion counts as positive.
        total: labelled positions in the optimizer batch.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    scores = logits.float()
    hard = (scores.detach().sigmoid() > threshold).float()
    target = (1 - weight) * weak.float() + weight * hard
    return binary_cross_entropy_with_logits(scores, target, reduction="sum") / total


def balanced_threshold(logits: Tensor, positive: float = 0.5) -> Tensor:
    """The probability above which the share `positive` of a batch lies.

    Args:
        logits: (n,) raw scores; n = 0 gives 0.5.
        positive: 0.5 in the paper; the mean weak label in its code.
    """
    import torch

    probabilities = logits.detach().float().sigmoid()
    if not len(probabilities):
        return torch.tensor(0.5, device=logits.device)
    return probabilities.quantile(1 - positive)


def confidence_weight(progress: float, maximum: float, warmup: float = 0.2) -> float:
    """The weight a at a share `progress` of training: from 0, linearly, to `maximum` at `warmup`.

    The paper's maximum is 0.75 for its largest students, else 0.5. Its released code jumps from the end
    of its warm-up to 1; this is the form that the paper describes.
    """
    return maximum * min(1.0, progress / warmup) if warmup > 0 else maximum
