"""Means over problems and how sure we are of them: percentile bootstrap over problems.

The unit that is resampled is the problem, never the sample: samples of one problem share its
difficulty, and an interval over samples would be several times too narrow. One set of resampling
counts serves every column of a table, so intervals of differences are paired by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.reranking.draws import random_generator


@dataclass(frozen=True)
class Intervals:
    """Estimates with bounds; each array has one entry per column."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples over problems, coverage, and the seed of the resampling."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def counts(self, problems: int) -> NDArray[np.float64]:
        """How often each problem is in each resample, (resamples, problems); rows sum to `problems`.

        Depends on the seed and the number of problems only, so two tables over the same problems
        see the same resamples.
        """
        rng = random_generator(self.seed, "bootstrap", problems)
        return rng.multinomial(problems, np.full(problems, 1 / problems), size=self.resamples).astype(
            np.float64
        )

    def bounds(self, estimates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Percentile bounds of resampled estimates, (resamples, columns) -> two arrays of (columns,).

        A resample without an estimate (nan: it drew no problem that counts) is left out.
        """
        tail = (1 - self.confidence) / 2
        low, high = np.nanquantile(estimates, [tail, 1 - tail], axis=0)
        return low, high


def mean_intervals(values: NDArray[np.floating], bootstrap: Bootstrap) -> Intervals:
    """Mean over problems and its percentile interval, for every column.

    Args:
        values: (problems, columns) one value per problem; for a paired difference of two methods,
            the difference of their values.

    Raises:
        ValueError: there are no problems.
    """
    if len(values) == 0:
        raise ValueError("no problems to average over; the level group is empty")
    values = np.asarray(values, dtype=np.float64)
    low, high = bootstrap.bounds(bootstrap.counts(len(values)) @ values / len(values))
    return Intervals(values.mean(axis=0), low, high)


def ratio_intervals(
    sums: NDArray[np.number], counts: NDArray[np.number], bootstrap: Bootstrap
) -> tuple[float, float, float]:
    """Mean over items that come in clusters (steps within problems): estimate, low, high.

    Args:
        sums: (problems,) sum of the items of each problem.
        counts: (problems,) how many items each problem has.
    """
    drawn = bootstrap.counts(len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = bootstrap.bounds((drawn @ sums / (drawn @ counts))[:, None])
    return float(sums.sum() / counts.sum()), float(low[0]), float(high[0])


def wilson(share: float, problems: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share of problems (1927). Where all problems agree, resampling them says
    [0, 0] or [1, 1], as if nothing else could come; 0 of 4 is [0, .49].

    Args:
        share: in [0, 1].
    """
    from scipy.special import ndtri

    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    middle, reach = share + z2 / (2 * problems), z2 * share * (1 - share) / problems
    half = (reach + (z2 / (2 * problems)) ** 2) ** 0.5
    size = 1 + z2 / problems
    return max(0.0, (middle - half) / size), min(1.0, (middle + half) / size)
