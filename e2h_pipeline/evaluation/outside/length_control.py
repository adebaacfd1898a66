"""The control of a judge of steps: a guess from the position and the length of a step alone.

It reads no mathematics. It is a logistic regression that is taught on the labels of the judged file
itself, by folds of problems, so it knows what no evaluator of easy steps may know: an evaluator that is
no better than this has shown nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.step_benchmarks.human_steps import HumanSolution
from e2h_pipeline.rewards.folds import folds_of
from e2h_pipeline.statistics.logistic import fit_logistic
from e2h_pipeline.supervision.rows import UNLABELLED

FOLDS = 5


def length_scores(
    solutions: Sequence[HumanSolution], lengths: Sequence[Sequence[int]], seed: int
) -> list[list[float]] | None:
    """Probability that each step is right, by a control that has not seen its problem; None where
    there are fewer problems than folds, or a fold would be taught nothing.

    Args:
        lengths: characters of each step of each solution.
    """
    problems = [solution.problem for solution in solutions]
    if len(set(problems)) < FOLDS:
        return None
    folds = folds_of(problems, FOLDS, seed)
    place = np.array([folds[solution.problem] for solution in solutions for _ in solution.labels])
    labels = np.array([label for solution in solutions for label in solution.labels])
    features = np.concatenate([_features(own) for own in lengths])
    found = np.empty(len(labels))
    for fold in range(FOLDS):
        taught = (place != fold) & (labels != UNLABELLED)
        if not taught.any():
            return None
        found[place == fold] = fit_logistic(features[taught], labels[taught]).probability(
            features[place == fold]
        )
    sizes = np.cumsum([len(solution.labels) for solution in solutions])[:-1]
    return [part.tolist() for part in np.split(found, sizes)]


def _features(lengths: Sequence[int]) -> NDArray[np.float64]:
    """Position and length of each step, and their squares, (steps, 4). Nothing of what follows: a
    labelled solution may end at its first error, so its length would tell."""
    position = np.log1p(np.arange(len(lengths)))
    length = np.log1p(lengths)
    return np.stack([position, position**2, length, length**2], axis=1)
