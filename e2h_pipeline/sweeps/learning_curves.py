"""Early stopping of members by their learning curves, and a replay to measure savings and losses.

`Predicted` is Baker et al. 2018 (arXiv 1705.10823). A regression predicts the end of a curve from
its first points, their differences and the hyperparameters. A run is given up if it will hardly
beat the best finished run. The paper uses support vector regression with its own hyperparameters
and reports least squares as nearly as good; this is ridge regression. `Median` is the median rule
of Vizier (Golovin et al. 2017). `Never` is the default of sweeps.

Curves are easy validation accuracy, at the same checkpoints in all members: no hard answers here.
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
        values: easy validation at each checkpoint; higher is better.
        knobs: hyperparameters as numbers, in the same order in all runs.
    """

    values: tuple[float, ...]
    knobs: tuple[float, ...] = ()

    @property
    def end(self) -> float:
        """The run's result: its best checkpoint, because that one is kept."""
        return max(self.values)


class Rule(Protocol):
    """Decides after each checkpoint of a run."""

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """Whether to give up an unfinished run, given the finished ones."""
        ...


@dataclass(frozen=True)
class Never:
    """Gives up no run."""

    def hopeless(self, begun: Curve, ended: Sequence[Curve]) -> bool:
        """See `Rule.hopeless`."""
        return False


@dataclass(frozen=True)
class Median:
    """Give up a run if its best value is below the median of the others' means to that checkpoint.

    Attributes:
        least: finished runs needed before any is given up.
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
    """Give up a run that will end below the best so far with this confidence.

    Attributes:
        least: finished runs needed before any is given up. With fewer than about twenty, the spread
            of the prediction (from leave-one-out residuals) is unreliable.
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
    """Predicted result of a run, and its standard deviation from leave-one-out residuals.

    Args:
        ended: two or more longer curves with as many knobs.
    """
    points = len(begun.values)
    rows = np.array([_features(curve, points) for curve in ended])
    mean, scale = rows.mean(0), rows.std(0)
    scale[scale == 0] = 1.0
    standard = np.column_stack([np.ones(len(rows)), (rows - mean) / scale])
    ends = np.array([curve.end for curve in ended])
    penalty = _RIDGE * len(rows) * np.eye(standard.shape[1])
    penalty[0, 0] = 0.0  # no penalty on the intercept
    inverse = np.linalg.inv(standard.T @ standard + penalty)
    weights = inverse @ standard.T @ ends
    leverage = np.einsum("ij,jk,ik->i", standard, inverse, standard)
    left_out = (ends - standard @ weights) / np.maximum(1 - leverage, 1e-6)
    asked = np.concatenate([[1.0], (_features(begun, points) - mean) / scale])
    return float(asked @ weights), float(np.sqrt(np.mean(left_out**2)))


def _features(curve: Curve, points: int) -> NDArray[np.float64]:
    """The paper's features: a curve's beginning, its first and second differences, the knobs."""
    values = np.array(curve.values[:points])
    return np.concatenate([values, np.diff(values), np.diff(values, 2), curve.knobs])


def normal_below(distance: float, spread: float) -> float:
    """P(N(0, spread) <= distance)."""
    if spread == 0:
        return float(distance >= 0)
    return 0.5 * (1 + math.erf(distance / (spread * math.sqrt(2))))


@dataclass(frozen=True)
class Replay:
    """The effect of a rule on a sweep that had been run in full.

    Attributes:
        saved: share of all checkpoints that the rule skips.
        regret: best result without the rule minus best result with it.
        best_lost: whether the best run was given up.
    """

    saved: float
    regret: float
    best_lost: bool


def replay(curves: Sequence[Curve], rule: Rule) -> Replay:
    """Run a recorded sweep again in this order, one member after the other, and apply the rule.

    Args:
        curves: at least one, each of a complete run.
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
