"""Does a score of 0.8 mean right eight times in ten, and do scores sag as solutions get longer?

Expected calibration error (Naeini et al. 2015; Guo et al. 2017): items in equal-width bins of their
score, the gap between mean score and share of right ones in each bin, averaged by the bins' sizes.
Slopes are ordinary least squares of the scores of right items on a length; a score of right steps
that falls with length drowns long good solutions in the product. Intervals resample problems.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.ranking import score_bins

Estimate = tuple[float, float, float]  # value, low, high


def calibration_error(
    scores: NDArray[np.floating],
    right: NDArray[np.bool_],
    problems: NDArray[np.integer],
    bootstrap: Bootstrap,
    bins: int = 10,
) -> Estimate:
    """Expected calibration error in [0, 1] with its interval.

    Noise only ever adds to a mean of absolute gaps, so the resampled errors lie higher than the
    estimate: with few items per bin the interval sits to the right.

    Args:
        scores: (items,) in [0, 1].
        right: (items,)
        problems: (items,) number of the problem each item belongs to.

    Raises:
        ValueError: there are no items.
    """
    if len(scores) == 0:
        raise ValueError("no items to calibrate")
    cluster = np.unique(problems, return_inverse=True)[1]
    size = int(cluster.max()) + 1
    cells = cluster * bins + score_bins(scores, bins)
    gaps = np.bincount(cells, np.asarray(scores, float) - right, minlength=size * bins).reshape(size, bins)
    items = np.bincount(cluster, minlength=size).astype(float)
    drawn = bootstrap.counts(size)
    low, high = bootstrap.bounds((np.abs(drawn @ gaps).sum(axis=1) / (drawn @ items))[:, None])
    return float(np.abs(gaps.sum(axis=0)).sum() / items.sum()), float(low[0]), float(high[0])


def slope(
    lengths: NDArray[np.number],
    scores: NDArray[np.floating],
    problems: NDArray[np.integer],
    bootstrap: Bootstrap,
) -> Estimate | None:
    """Least-squares slope of scores on lengths, per unit of length; None where all lengths are equal.

    Args:
        lengths: (items,) position of a step, or length of its solution.
        scores: (items,)
        problems: (items,) number of the problem each item belongs to.
    """
    if len(lengths) == 0 or (lengths == lengths[0]).all():
        return None
    cluster = np.unique(problems, return_inverse=True)[1]
    x, y = np.asarray(lengths, float), np.asarray(scores, float)
    x, y = x - x.mean(), y - y.mean()  # the slope stays, and sums of squares lose no digits
    moments = np.stack([np.bincount(cluster, w) for w in (np.ones_like(x), x, y, x * x, x * y)], axis=1)
    value = _slope(moments.sum(axis=0)[None])[0]
    low, high = bootstrap.bounds(_slope(bootstrap.counts(len(moments)) @ moments)[:, None])
    return float(value), float(low[0]), float(high[0])


def _slope(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes from sums of 1, x, y, x², xy, (..., 5); nan where x does not vary."""
    n, x, y, xx, xy = np.moveaxis(moments, -1, 0)
    spread = n * xx - x * x
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-9 * n * xx, (n * xy - x * y) / spread, np.nan)
