"""Labelled easy solutions, judged by evaluators that have not seen their problems.

Thresholds come from these, and an evaluator's own figures on easy levels. They are judged out of fold
where the evaluator was trained in folds; else they are those of the validation problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.evaluation.step_benchmarks.human_steps import is_complete
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    NO_ERROR,
    OneClass,
    Threshold,
    choose_threshold,
)
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.folds import read_out_of_fold
from e2h_pipeline.supervision.rows import UNLABELLED

if TYPE_CHECKING:
    from e2h_pipeline.solutions import TextFormat

RIGHT_FROM = 0.5
"""A soft label counts as right from here."""

Scores = Sequence[Sequence[float]]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class EasySteps:
    """Labelled easy solutions, as the evaluator was trained or validated on them.

    Attributes:
        rows: of easy_step_labels; all where there are folds, else those of validation.
        train: rows that trained the evaluator.
        scores: probability of each segment of `rows`, by evaluators that have not seen the problem.
        folds: fold of each problem; None without folds.
    """

    rows: Sequence[Row]
    train: Sequence[Row]
    scores: Scores
    folds: Mapping[str, int] | None

    @classmethod
    def read(cls, evaluator: Path, labels: Path, text: TextFormat) -> EasySteps:
        """Of artifacts of easy_evaluator and easy_step_labels."""
        rows = read_table(labels / TABLE).to_pylist()
        judged = read_out_of_fold(evaluator)
        if judged:
            logits = judged.logits.get("steps", [])  # none where it learned from outcomes alone
            scores = [step_probabilities(np.array(x)).tolist() for x in logits]
            return cls(rows if logits else [], rows, scores, judged.folds)
        held = [row for row in rows if row["split"] == "validation"]
        scores = scored_steps(
            evaluator, [(row["question"], row["completion"], row["finished"]) for row in held], text
        )
        return cls(held, [row for row in rows if row["split"] == "train"], scores, None)

    def threshold(self, scores: Scores) -> Threshold | None:
        """The threshold with the best first-error F1 on these solutions; None where all or none are
        right."""
        whole = [i for i, row in enumerate(self.rows) if is_complete(row["labels"])]
        truth = [first_wrong(self.rows[i]["labels"]) for i in whole]
        try:
            return choose_threshold([scores[i] for i in whole], truth)
        except OneClass:
            return None


def easy_threshold(evaluator: Path, labels: Path, text: TextFormat) -> Threshold | None:
    """The threshold of a saved evaluator on easy solutions; None where all or none are right.

    Args:
        labels: easy_step_labels artifact.
        text: the domain's.
    """
    easy = EasySteps.read(evaluator, labels, text)
    return easy.threshold(easy.scores)


def first_wrong(labels: Sequence[float]) -> int:
    """Index of the first step labelled wrong, -1 where there is none."""
    return next((i for i, label in enumerate(labels) if UNLABELLED < label < RIGHT_FROM), NO_ERROR)


def scored_steps(
    evaluator: Path, solutions: Sequence[tuple[str, str, bool]], text: TextFormat
) -> list[list[float]]:
    """Probability that each segment is right, of (question, completion, finished)."""
    from e2h_pipeline.rewards.step_scorer import StepScorer

    return [row.tolist() for row in StepScorer(evaluator, text).step_probabilities(solutions)]
