"""Which members of a sweep are hopeless, by the beginning of their learning curves, and what giving them up would cost.

`Predicted` is Baker et al. 2018 (arXiv 1705.10823): a regression from the first points of a curve, their differences and
the hyperparameters to its end, and a run is given up where it will hardly beat the best of those that ended. The paper
takes support vectors with knobs of their own and reports least squares as nearly as good; here it is ridge regression.
`Median` is the median rule of Vizier (Golovin et al. 2017), `Never` is what sweeps do unless told otherwise.

Curves are of easy validation accuracy, at the same checkpoints in all members: nothing here sees hard answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1e-2  # on standardized features
_LEAST_POINTS = 2


@dataclass(frozen=True)
class Curve:
    """A run.

    Attributes:
        values: its measure at each checkpoint, higher is better.
        knobs: hyperparameters as numbers, in the same order in all runs.
    """

    values: tuple[float, ...]
    knobs: tuple[float, ...] = ()

    @property
    def end(self) -> float:
        """What the run is worth: the best of its checkpoints, for that is the one that is kept."""
        return max(self.values)


class Rule(Protocol):
    """Decides after each checkpoint."""

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """Whether a run that is at this point should be given up, in the light of those that ran to their end."""
        ...


@dataclass(frozen=True)
class Never:
    """Every run goes to its end."""

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """See `Rule.hopeless`."""
        return False


@dataclass(frozen=True)
class Median:
    """Give a run up whose best checkpoint so far is below the median of the others' mean up to the same checkpoint.

    Attributes:
        least: runs that must have ended before any is given up.
    """

    least: int = 5

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """See `Rule.hopeless`."""
        points = len(begun.values)
        longer = [curve for curve in ended if len(curve.values) >= points]
        if len(longer) < self.least or points < _LEAST_POINTS:
            return False
        return begun.end < float(np.median([np.mean(curve.values[:points]) for curve in longer]))


@dataclass(frozen=True)
class Predicted:
    """Give a run up that will end below the best so far with this confidence.

    Attributes:
        least: runs that must have ended before any is given up: below some twenty the spread of the prediction, from
            leave-one-out residuals, is not to be trusted.
        confidence: of ending below the best (the paper: .99 and .95).
    """

    least: int = 20
    confidence: float = 0.95

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """See `Rule.hopeless`."""
        points = len(begun.values)
        longer = [curve for curve in ended if len(curve.values) > points]
        if len(longer) < self.least or points < _LEAST_POINTS:
            return False
        told, spread = predict_end(begun, longer)
        best = max(curve.end for curve in ended)
        return normal_below(best - told, spread) >= self.confidence


def predict_end(begun: Curve, ended: Sequence[Curve]) -> tuple[float, float]:
    """What a run will be worth, and the standard deviation of that, from the leave-one-out residuals of those that ended.

    Args:
        ended: longer curves with as many knobs, two or more.
    """
    points = len(begun.values)
    rows = np.array([_features(curve, points) for curve in ended])
    mean, scale = rows.mean(0), rows.std(0)
    scale[scale == 0] = 1.0
    standard = np.column_stack([np.ones(len(rows)), (rows - mean) / scale])
    ends = np.array([curve.end for curve in ended])
    penalty = _RIDGE * len(rows) * np.eye(standard.shape[1])
    penalty[0, 0] = 0.0  # the intercept is free
    inverse = np.linalg.inv(standard.T @ standard + penalty)
    weights = inverse @ standard.T @ ends
    leverage = np.einsum("ij,jk,ik->i", standard, inverse, standard)
    left_out = (ends - standard @ weights) / np.maximum(1 - leverage, 1e-6)
    asked = np.concatenate([[1.0], (_features(begun, points) - mean) / scale])
    return float(asked @ weights), float(np.sqrt(np.mean(left_out**2)))


def _features(curve: Curve, points: int) -> NDArray[np.float64]:
    """The beginning of a curve, its first and second differences, and the knobs (the paper's features)."""
    values = np.array(curve.values[:points])
    return np.concatenate([values, np.diff(values), np.diff(values, 2), curve.knobs])


def normal_below(distance: float, spread: float) -> float:
    """P(N(0, spread) <= distance)."""
    if spread == 0:
        return float(distance >= 0)
    return 0.5 * (1 + math.erf(distance / (spread * math.sqrt(2))))


@dataclass(frozen=True)
class Replay:
    """What a rule would have done to a sweep that was run whole.

    Attributes:
        saved: share of all checkpoints that would not have been run.
        regret: by how much the best run that is left is worse than the best of all.
        best_lost: whether the best run was given up.
    """

    saved: float
    regret: float
    best_lost: bool


def replay(curves: Sequence[Curve], rule: Rule) -> Replay:
    """Run a sweep again, one member after the other in this order, and give up what the rule calls hopeless.

    Args:
        curves: at least one, each whole.
    """
    ended: list[Curve] = []
    run = 0
    for curve in curves:
        stop = next(
            (
                points
                for points in range(1, len(curve.values))
                if rule.hopeless(Curve(curve.values[:points], curve.knobs), ended)
            ),
            None,
        )
        run += stop or len(curve.values)
        if stop is None:
            ended.append(curve)
    best = max(curve.end for curve in curves)
    left = max((curve.end for curve in ended), default=-math.inf)
    return Replay(1 - run / sum(len(curve.values) for curve in curves), best - left, left < best)
