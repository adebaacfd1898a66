"""Counter-based randomness: one uniform per (seed, stage, problem, sample, position).

Each draw is a hash of these five, so a sample does not depend on batch size, order, interruption or
the number of other samples. Mixing is SplitMix64's finalizer (Steele et al., OOPSLA 2014).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def stream_key(seed: int, stage: str, problem_id: str) -> int:
    """64-bit key of one problem's draws in one stage."""
    return _hashed(f"{seed}\x00{stage}\x00{problem_id}")


def branch_key(key: int, *branch: int | str) -> int:
    """64-bit key of a separate stream, for draws that continue from a point of a search.

    Args:
        key: stream of the question.
        branch: identifies the point within the question: number of the sample, text so far.
    """
    return _hashed("\x00".join(map(str, (key, *branch))))


def _hashed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def uniforms(
    keys: NDArray[np.uint64], samples: NDArray[np.int64], position: int | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one per row.

    Args:
        keys: (rows,) stream keys.
        samples: (rows,) sample indices.
        position: index of the token that is drawn, the same for all rows or (rows,).
    """
    with np.errstate(over="ignore"):
        mixed = _mix(keys + _STEP * (samples.astype(np.uint64) + np.uint64(1)))
        mixed = _mix(mixed + _STEP * (np.asarray(position, np.uint64) + np.uint64(1)))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
