"""The scorer of a search: an evaluator's step probabilities, in any process."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rewards.step_scorer import StepScorer
from e2h_pipeline.solutions import MARKED


def test_step_probabilities_are_those_of_the_evaluator(ladder_evaluator: Path) -> None:
    solutions = [("3+5", "3+5=8\n\n", False), ("3+5", "3+5=8\n\n# Answer\n\n8", True), ("1", "", False)]
    scorer: StepScorer = pickle.loads(pickle.dumps(StepScorer(ladder_evaluator, MARKED)))  # noqa: S301
    found = scorer.step_probabilities(solutions)
    scorer.close()
    assert [len(own) for own in found] == [1, 2, 0]
    logits = score_solutions(*load_evaluator(ladder_evaluator), solutions, text=MARKED)
    for own, expected in zip(found, logits, strict=True):
        np.testing.assert_allclose(own, 1 / (1 + np.exp(-np.array(expected))), rtol=1e-6)
