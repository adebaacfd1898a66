"""Step scores to one solution score: product, minimum, mean or last (paper, appendix L).

The paper votes with the product and takes the minimum for best-of-N; `last` suits evaluators that
were trained on outcomes. Scores are logarithms: a product over fifty poor steps underflows, and bad
solutions would tie.

Solutions have different numbers of steps. So step scores come flat with offsets, as in an Arrow
list column: solution i owns `scores[offsets[i]:offsets[i + 1]]`. A solution without steps has score
0, because nothing in it was found right.

An aggregation is a function of the log probabilities of all steps, (steps,), of the index where
each solution begins, (solutions,), and of the number of its steps, (solutions,), which is at least
1. It returns the log scores, (solutions,). A new one is a function here, or in an installed
package, and a line of the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

Aggregation = Callable[[NDArray[np.float64], NDArray[np.integer], NDArray[np.integer]], NDArray[np.float64]]

PREFERRED: Mapping[str, tuple[str, ...]] = {
    "weighted-vote": ("product", "min", "mean", "last"),
    "best-of-n": ("min", "product", "mean", "last"),
}
"""Which aggregation speaks for a method where one has to: the paper's choice first, fixed before any result."""


def by_preference(method: str, there: Collection[str]) -> list[str]:
    """The aggregations that a method was run with, the one that speaks for it first; unknown ones last."""
    return [name for name in PREFERRED[method] if name in there] + sorted(set(there) - set(PREFERRED[method]))


def product(
    log_probabilities: NDArray[np.float64], starts: NDArray[np.integer], _lengths: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The product of the steps: the probability that all are right, were they independent."""
    return np.add.reduceat(log_probabilities, starts)


def minimum(
    log_probabilities: NDArray[np.float64], starts: NDArray[np.integer], _lengths: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The worst step."""
    return np.minimum.reduceat(log_probabilities, starts)


def mean(
    log_probabilities: NDArray[np.float64], starts: NDArray[np.integer], lengths: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The arithmetic mean of the probabilities."""
    return np.logaddexp.reduceat(log_probabilities, starts) - np.log(lengths)


def last(
    log_probabilities: NDArray[np.float64], starts: NDArray[np.integer], lengths: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The last step."""
    return log_probabilities[starts + lengths - 1]


def step_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability that each step is right: sigmoid(logit)."""
    return np.exp(log_step_probabilities(logits))


def log_step_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """log sigmoid(logit), accurate for large logits of either sign."""
    return -np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))


def log_solution_scores(
    logits: NDArray[np.floating], offsets: NDArray[np.integer], aggregation: Aggregation
) -> NDArray[np.float64]:
    """Logarithm of each solution's score, shape (solutions,); -inf where there are no steps.

    Args:
        logits: (steps,) raw evaluator outputs of all solutions, one behind the other.
        offsets: (solutions + 1,) non-decreasing, from 0 to `len(logits)`.
        aggregation: of steps to solutions.

    Raises:
        ValueError: offsets that do not fit, or a logit that is not finite.
    """
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits))[0])
        raise ValueError(f"step logit {bad} is {logits[bad]}; score the pool again, a logit must be finite")
    return aggregate(log_step_probabilities(logits), offsets, aggregation)


def aggregate(
    log_probabilities: NDArray[np.float64], offsets: NDArray[np.integer], aggregation: Aggregation
) -> NDArray[np.float64]:
    """`log_solution_scores` from log probabilities: (steps,), not above 0, -inf for a step of score 0."""
    _check_offsets(offsets, len(log_probabilities))
    steps = np.diff(offsets)
    scored = steps > 0
    scores = np.full(len(steps), -np.inf)
    if scored.any():
        scores[scored] = aggregation(log_probabilities, offsets[:-1][scored], steps[scored])
    return scores


def _check_offsets(offsets: NDArray[np.integer], steps: int) -> None:
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != steps or (np.diff(offsets) < 0).any():
        raise ValueError(f"step offsets must rise from 0 to the number of step logits ({steps})")
