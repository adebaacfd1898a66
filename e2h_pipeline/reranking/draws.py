"""Which samples a vote over N sees: seeded subsets of the pool, without replacement.

A subset depends on (seed, problem, N) and nothing else, so results do not move with the order of
problems or with which other N are asked for, and every method votes over the same subsets: their
difference is paired.
"""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
from numpy.typing import NDArray


def random_generator(*parts: object) -> np.random.Generator:
    """A random generator that depends only on the named parts, in order."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def sample_counts(samples: int) -> list[int]:
    """N = 1, 2, 4, ... up to `samples`, which always is the last."""
    counts = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*counts, samples]


def subsets(samples: int, n: int, draws: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Subsets of n out of `samples` indices, shape (subsets, n).

    All subsets where there are no more of them than `draws` (always for n = 1), so that the mean
    over them is exact; otherwise `draws` seeded ones.
    """
    if n == 1 or math.comb(samples, n) <= draws:
        return np.array(list(itertools.combinations(range(samples), n)), dtype=np.intp)
    return np.argpartition(rng.random((draws, samples)), n - 1, axis=1)[:, :n]
