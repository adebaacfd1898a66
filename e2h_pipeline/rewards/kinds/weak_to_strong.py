"""Learning from a weaker supervisor: the confidence loss of Burns et al. 2023 (arXiv 2312.09390) on
step labels.

    L = (1 - a) CE(weak, f) + a CE(hard, f),   hard = 1 where f > threshold, else 0, without a
    gradient

This is CE against the mixed target (1 - a) weak + a hard. With a = 0 it is plain training on weak
labels. So the evaluator keeps its own opinion where the supervisor is wrong.

Paper and released code (openai/weak-to-strong) differ, and two fields say which is followed:

- threshold: the paper's splits each batch in halves (`half`), which fits balanced classes. Most steps
  are right, so the default is that of the code: the share of the micro-batch above it is the mean
  weak label of the micro-batch (`mean_label`).
- a: the paper's grows linearly to its maximum over the first fifth of training (`linear`). In the code
  it is the share of training that is done, times the maximum, and jumps to the maximum after the
  first tenth (`jump` with `confidence_warmup: 0.1`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.kinds.prm import Prm
from e2h_pipeline.training.batches import WEIGHTS, run_model
from e2h_pipeline.training.next_token import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.recipe import WeakToStrongReward
    from e2h_pipeline.training.trainer import Objective, TrainingStep


class WeakToStrong(Prm):
    """A step scorer that is not bound by the errors of its labels."""

    def objective(self, options: WeakToStrongReward, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""

        def loss(model: PreTrainedModel, batch: Mapping[str, Any], step: TrainingStep) -> Tensor:
            chosen = batch["labels"] != IGNORED
            own, weak = run_model(model, batch).logits.squeeze(-1)[chosen], batch["labels"][chosen]
            weight = jumping_weight if options.schedule == "jump" else confidence_weight
            confidence = weight(step.progress, options.confidence, options.confidence_warmup)
            positive = 0.5 if options.threshold == "half" or not len(weak) else float(weak.mean())
            threshold = balanced_threshold(own, positive)
            weights = batch[WEIGHTS][chosen] if WEIGHTS in batch else None
            return confidence_loss(own, weak, confidence, threshold, step.total, weights)

        return loss


def confidence_loss(
    logits: Tensor,
    weak: Tensor,
    confidence: float,
    threshold: Tensor | float,
    total: Tensor | float,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the weak labels mixed with the evaluator's own hardened opinion.

    Args:
        logits: (n,) raw scores of the labelled positions.
        weak: (n,) the supervisor's probabilities in [0, 1].
        confidence: the share a of the own opinion, in [0, 1].
        threshold: probability above which an opinion counts as positive.
        total: labelled positions in the optimizer batch, or the sum of their weights.
        weights: (n,) weight of each label; all 1 where None.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    scores = logits.float()
    hard = (scores.detach().sigmoid() > threshold).float()
    target = (1 - confidence) * weak.float() + confidence * hard
    return binary_cross_entropy_with_logits(scores, target, weight=weights, reduction="sum") / total


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

    The paper's maximum is 0.75 for its largest students, else 0.5.
    """
    return maximum * min(1.0, progress / warmup) if warmup > 0 else maximum


def jumping_weight(progress: float, maximum: float, warmup: float = 0.1) -> float:
    """The weight a of the released code: `maximum` times the progress up to `warmup`, then `maximum`."""
    return maximum * (progress if progress <= warmup else 1.0)
