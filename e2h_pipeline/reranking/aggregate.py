"""Step scores to one solution score: product, minimum, mean or last (paper, appendix L).

The paper votes with the product and takes the minimum for best-of-N; `last` suits outcome-trained
evaluators. Everything is kept as a logarithm, because a product over fifty poor steps underflows
and would turn the order of bad solutions into ties.

Solutions have different numbers of steps, so step scores come flat with offsets (the layout of an
Arrow list column): solution i owns `logits[offsets[i]:offsets[i + 1]]`. A solution without steps
has score 0: nothing in it was found right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Aggregation = Literal["product", "min", "mean", "last"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
# Which aggregation speaks for a method where one has to: the paper's choice first, fixed before any result.
PREFERRED: Mapping[str, tuple[Aggregation, ...]] = {
    "weighted-vote": ("product", "min", "mean", "last"),
    "best-of-n": ("min", "product", "mean", "last"),
}


def by_preference(method: str, there: Collection[str]) -> list[str]:
    """The aggregations that a method was run with, the one that speaks for it first; unknown ones last."""
    return [name for name in PREFERRED[method] if name in there] + sorted(set(there) - set(PREFERRED[method]))


def step_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability that each step is right: sigmoid(logit)."""
    return np.exp(log_step_probabilities(logits))


def log_step_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """log sigmoid(logit), accurate for large logits of either sign."""
    return -np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))


def log_solution_scores(
    logits: NDArray[np.floating], offsets: NDArray[np.integer], aggregation: str
) -> NDArray[np.float64]:
    """Logarithm of each solution's score, shape (solutions,); -inf where there are no steps.

    Args:
        logits: (steps,) raw evaluator outputs of all solutions, one behind the other.
        offsets: (solutions + 1,) non-decreasing, from 0 to `len(logits)`.
        aggregation: one of `AGGREGATIONS`.

    Raises:
        ValueError: unknown aggregation, offsets that do not fit, or a logit that is not finite.
    """
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits))[0])
        raise ValueError(f"step logit {bad} is {logits[bad]}; score the pool again, a logit must be finite")
    return aggregate(log_step_probabilities(logits), offsets, aggregation)


def aggregate(
    log_probabilities: NDArray[np.float64], offsets: NDArray[np.integer], aggregation: str
) -> NDArray[np.float64]:
    """`log_solution_scores` from log probabilities: (steps,), not above 0, -inf for a step of score 0."""
    _check_offsets(offsets, len(log_probabilities))
    steps = np.diff(offsets)
    scored = steps > 0
    scores = np.full(len(steps), -np.inf)
    if scored.any():
        scores[scored] = _reduce(log_probabilities, offsets[:-1][scored], steps[scored], aggregation)
    return scores


def _reduce(
    values: NDArray[np.float64], starts: NDArray[np.integer], steps: NDArray[np.integer], aggregation: str
) -> NDArray[np.float64]:
    """Reduce runs of log probabilities. Empty runs are left out before, so runs are contiguous."""
    if aggregation == "product":
        return np.add.reduceat(values, starts)
    if aggregation == "min":
        return np.minimum.reduceat(values, starts)
    if aggregation == "mean":
        return np.logaddexp.reduceat(values, starts) - np.log(steps)
    if aggregation == "last":
        return values[starts + steps - 1]
    raise ValueError(f"unknown aggregation '{aggregation}'; there are: {', '.join(AGGREGATIONS)}")


def _check_offsets(offsets: NDArray[np.integer], steps: int) -> None:
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != steps or (np.diff(offsets) < 0).any():
        raise ValueError(f"step offsets must rise from 0 to the number of step logits ({steps})")
