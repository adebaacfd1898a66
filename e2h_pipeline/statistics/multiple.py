"""Several comparisons on one page: how often would one of them look clear by chance alone?

Twenty comparisons of equal methods, each at 95%, have one "clear" difference more often than not.
Holm's procedure (1979, Scandinavian Journal of Statistics 6, 65) keeps the chance of any at 5%,
whatever the comparisons have in common, and is never weaker than Bonferroni's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

CLEAR = 0.05
"""A comparison is clear below this p-value after Holm's correction."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order: below 0.05 they are clear among all of them.

    The smallest is multiplied by their number, the next by one less, and so on; none is below a
    smaller one's.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def p_value_of_interval(value: float, low: float, high: float, confidence: float) -> float:
    """Two-sided p-value of 0, from an estimate and its interval (Altman and Bland 2011, BMJ 343, d2304).

    The interval's half-width is a normal quantile times the standard error. An interval that ends at
    0 has about 1 - confidence.
    """
    if value == 0:
        return 1.0
    # The side towards 0 counts: a bootstrap's interval need not be symmetric.
    half = value - low if value > 0 else high - value
    if half <= 0:
        return 0.0
    return math.erfc(abs(value) / half * NormalDist().inv_cdf((1 + confidence) / 2) / math.sqrt(2))
