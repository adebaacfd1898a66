"""An aggregation of step scores: the geometric mean, which does not fall with more steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def geometric(
    log_probabilities: NDArray[np.float64], starts: NDArray[np.integer], lengths: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The geometric mean of the steps of each solution, as a logarithm: (solutions,)."""
    return np.add.reduceat(log_probabilities, starts) / lengths
