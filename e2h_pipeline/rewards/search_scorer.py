"""The scorer of a search: it reads a text as it grows, where the evaluator can be read so.

That is one model with a score per token. Evaluators of other kinds (`kind.json`) read whole texts, which
costs more tokens and gives a search the same kind of scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.evaluators import BATCH_TOKENS, read_kind
from e2h_pipeline.rewards.growing import GrowingScorer
from e2h_pipeline.rewards.step_scorer import StepScorer

if TYPE_CHECKING:
    from e2h_pipeline.solutions import TextFormat


def search_scorer(
    evaluator: Path, text: TextFormat, batch_tokens: int = BATCH_TOKENS
) -> GrowingScorer | StepScorer:
    """The scorer of an evaluator's folder; `text` is how the domain writes solutions."""
    grows = read_kind(evaluator) is None
    return (GrowingScorer if grows else StepScorer)(evaluator, text, batch_tokens)
