"""Evaluators of others as evaluators of a recipe: one, or an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.evaluators import BATCH_TOKENS, Evaluator, TokenScorer
from e2h_pipeline.rewards.outside.scorer import RULES, layout_logits, new_layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from e2h_pipeline.rewards.outside.layout import Layout, Loaded
    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import TextFormat

OURS = "ours"
"""Instead of a layout's word: one model with a score per token, as this project saves it."""
_SURE = 1e-9  # an ensemble's probabilities keep this distance from 0 and 1, so that log odds are finite


@dataclass(frozen=True)
class LayoutEvaluator(Evaluator):
    """A model that others have trained."""

    layout: Layout
    loaded: Loaded

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """See `Evaluator.models`."""
        return self.loaded.models

    def logits(
        self, solutions: Sequence[Solution], text: TextFormat, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[float]]:
        """See `Evaluator.logits`."""
        return layout_logits(self.layout, self.loaded, solutions, text, batch_tokens)


@dataclass(frozen=True)
class Ensemble(Evaluator):
    """Several evaluators as one, by a rule of `RULES`."""

    members: tuple[Evaluator, ...]
    rule: str

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """See `Evaluator.models`."""
        return tuple(model for member in self.members for model in member.models)

    def logits(
        self, solutions: Sequence[Solution], text: TextFormat, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[float]]:
        """See `Evaluator.logits`."""
        found = [member.logits(solutions, text, batch_tokens) for member in self.members]
        return [self._together(rows) for rows in zip(*found, strict=True)]

    def _together(self, rows: Sequence[Sequence[float]]) -> list[float]:
        probabilities = RULES[self.rule](np.stack([step_probabilities(np.array(row)) for row in rows]))
        inside = probabilities.clip(_SURE, 1 - _SURE)
        odds: list[float] = np.log(inside / (1 - inside)).tolist()
        return odds


def open_outside(folder: Path, told: Mapping[str, Any]) -> Evaluator:
    """The evaluator that `taken.take_evaluator` wrote."""
    members = tuple(_member(folder, one) for one in told["members"])
    return members[0] if len(members) == 1 else Ensemble(members, told["rule"])


def _member(folder: Path, told: Mapping[str, Any]) -> Evaluator:
    if told["layout"] == OURS:
        from e2h_pipeline.models.load import load_evaluator

        return TokenScorer(*load_evaluator(folder / told["folder"]))
    layout = new_layout(told["layout"], told["options"])
    others = [folder / name for name in layout.folders()]
    return LayoutEvaluator(layout, layout.load(folder / told["folder"], others))
