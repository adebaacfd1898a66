"""Evaluators that others have trained: taken as they are, with their provenance (`rewards.outside`).

Easy step labels teach them nothing. They give thresholds, and figures on easy validation, as for an
evaluator of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from e2h_pipeline.recipe import OutsideReward


class Outside(EvaluatorKind):
    """A step scorer of others, or an ensemble of such: its maker asks for no examples and no loss."""

    reads = ("steps",)
    maker = "e2h_pipeline.rewards.outside.taken:take_evaluator"
    reader = "e2h_pipeline.rewards.outside.reader:open_outside"

    def sources(self, options: OutsideReward) -> Sequence[str]:
        """See `EvaluatorKind.sources`."""
        names = (name for one in options.evaluator for name in (one.model, one.reference) if name)
        return tuple(dict.fromkeys(names))
