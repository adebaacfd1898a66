"""Logistic regression on a handful of features, for baselines: Newton's method with a small ridge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_STEPS = 100
_CLOSE = 1e-10


@dataclass(frozen=True)
class Logistic:
    """A fitted regression.

    Attributes:
        mean, scale: (features,) by which features are made comparable.
        weights: (features + 1,) of the scaled features, and the constant last.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]

    def probability(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probability of the label 1, (items,).

        Args:
            features: (items, features)
        """
        return _sigmoid(_with_constant((features - self.mean) / self.scale) @ self.weights)

    def plain(self) -> tuple[NDArray[np.float64], float]:
        """Weights, (features,), and constant for features as they are, not scaled."""
        weights = self.weights[:-1] / self.scale
        return weights, float(self.weights[-1] - self.mean @ weights)


def fit_logistic(
    features: NDArray[np.floating],
    labels: NDArray[np.floating],
    ridge: float = 1.0,
    counts: NDArray[np.floating] | None = None,
) -> Logistic:
    """Fit by penalised maximum likelihood; the constant is not penalised.

    Args:
        features: (items, features)
        labels: (items,) in [0, 1].
        ridge: half of it times the squared weights of scaled features is the penalty.
        counts: (items,) how often each counts; once where None.

    Raises:
        ValueError: no items.
    """
    if len(features) == 0:
        raise ValueError("no items to fit a regression on")
    x = np.asarray(features, float)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    x = _with_constant((x - mean) / scale)
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 1e-6  # one class alone has no finite constant
    weights, times = np.zeros(x.shape[1]), np.ones(len(x)) if counts is None else np.asarray(counts, float)
    for _ in range(_MOST_STEPS):
        p = _sigmoid(x @ weights)
        gradient = x.T @ (times * (p - labels)) + penalty * weights
        curvature = (x * (times * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step / max(1.0, float(np.abs(step).max()) / 5)
        if np.abs(step).max() < _CLOSE:
            break
    return Logistic(mean, scale, weights)


def _with_constant(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([x, np.ones((len(x), 1))])


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))
