"""Evaluators that others have trained: taken as they are, with their provenance (`rewards.outside`).

Easy step labels teach them nothing. They give thresholds, and figures on easy validation, as for an
evaluator of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import OutsideReward
    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective

_WHY = "an evaluator that others have trained is not trained here"


class Outside(EvaluatorKind):
    """A step scorer of others, or an ensemble of such."""

    reads = ("steps",)
    maker = "e2h_pipeline.rewards.outside.taken:take_evaluator"
    reader = "e2h_pipeline.rewards.outside.reader:open_outside"

    def sources(self, options: OutsideReward) -> Sequence[str]:
        """See `EvaluatorKind.sources`."""
        names = (name for one in options.evaluator for name in (one.model, one.reference) if name)
        return tuple(dict.fromkeys(names))

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: Any,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """None: see `EvaluatorKind.examples`."""
        raise NotImplementedError(_WHY)

    def objective(self, options: Any, seed: int) -> Objective:
        """None: see `EvaluatorKind.objective`."""
        raise NotImplementedError(_WHY)
