"""Means over seeds and problems, with intervals that hold for new seeds and new problems.

Every seed answers the same problems, so the two are crossed: value[s, p] = mean + seed[s] +
problem[p] + rest[s, p]. The half-width h of the interval adds that of the seeds and that of the
problems in quadrature (Howe 1974, JASA 69, 789: the mean of X + Y; Zou and Donner 2008, Statistics in
Medicine 27, 1693: the general form):

    h² = t(S - 1)² · variance of the seeds' means / S  +  t(P - 1)² · covariance of two seeds / P

with S seeds, P problems, t the quantile of Student's distribution with that many degrees of freedom,
and the covariance over problems of the values of two seeds, averaged over pairs of seeds, at least
0. It is the variance that the seeds have in common because they answer the same problems.

A percentile bootstrap over both levels does not hold with few seeds: three seeds drawn out of three
have 2/3 of their variance, and no quantile of Student. Measured in tests/statistics/test_seeds.py.
With one seed nothing is known about seeds, and the interval is over problems (bootstrap.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap, Intervals, mean_intervals, wilson

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_SEEDS = 5
"""Below this many seeds no difference of methods is told: with 3, t is 4.3 instead of 2, and the
seeds' own variance is known to within a factor of 6 either way."""

_HALVINGS = 60


@dataclass(frozen=True)
class SeedIntervals(Intervals):
    """Estimates over seeds and problems.

    Attributes:
        by_seed: (seeds, columns) the mean of each seed over its problems.
        p_value: (columns,) two-sided, of a mean of 0; nan with one seed.
    """

    by_seed: NDArray[np.float64]
    p_value: NDArray[np.float64]


def seed_intervals(
    values: NDArray[np.floating], bootstrap: Bootstrap, span: tuple[float, float] = (-np.inf, np.inf)
) -> SeedIntervals:
    """Means and intervals of values of several seeds on the same problems, for every column.

    Args:
        values: (seeds, problems, columns); for a difference of two methods, the differences seed by
            seed and problem by problem.
        bootstrap: its coverage; with one seed also its resamples.
        span: the least and greatest value there can be; no interval reaches further. Where all values
            are at one end, the interval is Wilson's.

    Raises:
        ValueError: there are no problems.
    """
    every = np.asarray(values, dtype=np.float64)
    if every.shape[1] == 0:
        raise ValueError("no problems to average over; the level group is empty")
    by_seed = every.mean(axis=1)
    mean = by_seed.mean(axis=0)
    if len(every) == 1:
        found = mean_intervals(every[0], bootstrap)
        low, high = _where_all_agree(mean, found.low, found.high, every.shape[1], span, bootstrap)
        return SeedIntervals(found.mean, low, high, by_seed, np.full(len(mean), np.nan))
    half_width = _half_widths(every)
    half = half_width(np.full(len(mean), 1 - bootstrap.confidence))
    low, high = (np.clip(bound, *span) for bound in (mean - half, mean + half))
    low, high = _where_all_agree(mean, low, high, every.shape[1], span, bootstrap)
    return SeedIntervals(mean, low, high, by_seed, _p_values(np.abs(mean), half_width))


def _where_all_agree(
    mean: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    problems: int,
    span: tuple[float, float],
    bootstrap: Bootstrap,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of shares, Wilson's where every value is the least or the greatest there can be."""
    if not np.isfinite(span).all():
        return low, high
    width = span[1] - span[0]
    for share, bound in ((0.0, span[0]), (1.0, span[1])):
        least, most = wilson(share, problems, bootstrap.confidence)
        low = np.where(mean == bound, span[0] + width * least, low)
        high = np.where(mean == bound, span[0] + width * most, high)
    return low, high


def seed_ratio(
    numerator: NDArray[np.floating], denominator: NDArray[np.floating], bootstrap: Bootstrap
) -> tuple[float, float, float] | None:
    """Ratio of two means, as of performance gap recovered: estimate, low, high.

    The interval is that of the mean of (numerator - ratio * denominator) / mean denominator, the
    ratio's linear part. None where the interval of the denominator includes 0: a ratio to a gap that
    may not be there has no interval.

    Args:
        numerator, denominator: (seeds, problems)
    """
    gap = seed_intervals(denominator[:, :, None], bootstrap)
    if gap.low[0] <= 0 <= gap.high[0]:
        return None
    ratio = float(numerator.mean() / denominator.mean())
    found = seed_intervals(((numerator - ratio * denominator) / denominator.mean())[:, :, None], bootstrap)
    return ratio, ratio + float(found.low[0]), ratio + float(found.high[0])


def _half_widths(values: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Share outside the interval, (columns,) -> half-width, (columns,). Two seeds or more."""
    from scipy.special import stdtrit

    seeds, problems, _ = values.shape
    of_seeds = values.mean(axis=1).var(axis=0, ddof=1) / seeds
    common = _common_variance(values) / problems

    def half_width(outside: NDArray[np.float64]) -> NDArray[np.float64]:
        terms = stdtrit(seeds - 1, outside / 2) ** 2 * of_seeds
        if problems > 1:
            terms = terms + stdtrit(problems - 1, outside / 2) ** 2 * common
        return np.asarray(np.sqrt(terms), dtype=np.float64)

    return half_width


def _common_variance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance over problems of two seeds, averaged over pairs of seeds, at least 0; (columns,)."""
    seeds, problems, columns = values.shape
    if problems == 1:
        return np.zeros(columns)
    # Variance of a sum: that of its parts, and twice the covariance of each pair.
    pairs = values.sum(axis=0).var(axis=0, ddof=1) - values.var(axis=1, ddof=1).sum(axis=0)
    return np.maximum(pairs / (seeds * (seeds - 1)), 0.0)


def _p_values(
    distance: NDArray[np.float64], half_width: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The share outside at which the interval just reaches 0, by halving; 1 for a distance of 0."""
    low, high = np.zeros(len(distance)), np.ones(len(distance))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        wide = half_width(middle) >= distance
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(distance == 0, 1.0, high)
