"""Label efficiency: how many labels one way of choosing needs for each label of another.

Lightman et al. 2023 (section 4) read their factor of 2.6 from fitted lines. Here each seed has its own
pair of lines, accuracy = a + b log(labels), and the factor is taken at the accuracy in the middle of
what both have reached. Its interval is over seeds, on the logarithm. A line that does not rise, or fits
badly, gives no factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.seeds import seed_intervals

LEAST_FIT = 0.5
"""Below this R², a line tells nothing."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Efficiency:
    """The factor, with its interval, or why there is none.

    Attributes:
        factor: (value, low, high) labels of the first way for each of the second; None without one.
        by_seed: the factor of each seed that has one.
        fits: R² of the two lines of each seed.
    """

    factor: tuple[float, float, float] | None
    by_seed: tuple[float, ...]
    fits: tuple[tuple[float, float], ...]

    def told(self) -> str:
        """One line for people."""
        fits = ", ".join(f"{one:.2f}/{other:.2f}" for one, other in self.fits)
        if self.factor is None:
            return f"none: a line does not rise, or fits badly (R² by seed {fits})"
        value, low, high = self.factor
        own = "/".join(f"{one:.2f}" for one in self.by_seed)
        return f"{value:.2f} [{low:.2f}, {high:.2f}] (by seed {own}; R² {fits})"


def efficiency(
    labels: Sequence[int], accuracy: Array, other_labels: Sequence[int], other_accuracy: Array
) -> Efficiency:
    """How many labels the first way needs for each label of the second, at equal accuracy.

    Args:
        labels: (points,) numbers of labels of the first way.
        accuracy: (seeds, points) its accuracy.
        other_labels, other_accuracy: of the second way, for the same seeds.
    """
    factors, fits = [], []
    for own, other in zip(accuracy, other_accuracy, strict=True):
        (a, b, fit), (c, d, other_fit) = _line(labels, own), _line(other_labels, other)
        fits.append((fit, other_fit))
        if b > 0 and d > 0 and min(fit, other_fit) >= LEAST_FIT:
            middle = (max(own.min(), other.min()) + min(own.max(), other.max())) / 2
            factors.append((middle - a) / b - (middle - c) / d)
    if len(factors) < len(accuracy):
        return Efficiency(None, tuple(np.exp(factors).tolist()), tuple(fits))
    found = seed_intervals(np.array(factors)[:, None, None], Bootstrap())
    value, low, high = (float(np.exp(part[0])) for part in (found.mean, found.low, found.high))
    return Efficiency((value, low, high), tuple(np.exp(factors).tolist()), tuple(fits))


def _line(labels: Sequence[int], accuracy: Array) -> tuple[float, float, float]:
    """Intercept, slope and R² of accuracy over the logarithm of labels."""
    x = np.log(np.asarray(labels, float))
    slope, intercept = np.polyfit(x, accuracy, 1)
    rest = ((accuracy - intercept - slope * x) ** 2).sum()
    spread = ((accuracy - accuracy.mean()) ** 2).sum()
    return float(intercept), float(slope), float(1 - rest / spread) if spread > 0 else 0.0
