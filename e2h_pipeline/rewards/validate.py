"""How well a saved evaluator tells right from wrong on easy validation solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.evaluators import open_evaluator
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.ranking import auroc

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.rewards.examples import Row, Rows
    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import TextFormat


def validate(evaluator: Path, rows: Mapping[str, Rows], text: TextFormat = MARKED) -> dict[str, Any]:
    """Figures of a saved evaluator on easy validation solutions.

    Args:
        rows: "steps" with labels for each segment, "outcomes" with an outcome, which is compared
            with the score at the end of the solution.
        text: how the domain writes solutions.

    Returns:
        "validation_step_auroc", "validation_outcome_auroc" (None where a class is missing), the
        accuracy at probability 0.5 of each, and how many were judged. A soft label counts as right
        from 0.5.
    """
    opened = open_evaluator(evaluator)
    return figures_of(rows, {kind: opened.logits(_solutions(part), text) for kind, part in rows.items()})


def score_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows, text: TextFormat
) -> list[list[float]]:
    """Raw logit of each segment of each row."""
    return score_solutions(model, tokenizer, _solutions(rows), text=text)


def _solutions(rows: Rows) -> list[Solution]:
    return [(row["question"], row["completion"], row["finished"]) for row in rows]


def figures_of(rows: Mapping[str, Rows], logits: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """The figures of `validate` from the raw logit of each segment of each row."""
    import numpy as np

    figures: dict[str, Any] = {}
    for kind, part in rows.items():
        judged = [
            pair for found, row in zip(logits[kind], part, strict=True) for pair in _judged(kind, found, row)
        ]
        scores, truth = (np.array([pair[i] for pair in judged], float) for i in (0, 1))
        unit = kind.removesuffix("s")
        figures[f"validation_{kind if kind == 'steps' else 'solutions'}"] = len(judged)
        figures[f"validation_{unit}_auroc"] = auroc(scores, truth >= 0.5)
        both = 0 < (truth >= 0.5).sum() < len(truth)
        figures[f"validation_{unit}_accuracy"] = (
            float(((scores > 0) == (truth >= 0.5)).mean()) if both else None
        )
    return figures


def _judged(kind: str, logits: Sequence[float], row: Row) -> list[tuple[float, float]]:
    if kind == "steps":
        return [(x, label) for x, label in zip(logits, row["labels"], strict=True) if label >= 0]
    return [(logits[-1], row["outcome"])] if logits else []
