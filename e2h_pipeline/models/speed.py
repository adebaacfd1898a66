"""How fast this machine multiplies in bfloat16: on some CPUs it is a gain, on others a great loss."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SIZE = 512
_TRIALS = 5
_WORTH_SAYING = 1.5


@lru_cache(maxsize=1)
def bfloat16_gain() -> float:
    """How many times faster this CPU multiplies matrices in bfloat16 than in float32; medians, some
    hundredths of a second."""
    import torch

    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def advice(mixed_precision: bool, gain: float) -> str:
    """What to change for speed, if anything.

    Args:
        gain: of bfloat16 over float32.
    """
    if mixed_precision and gain < 1 / _WORTH_SAYING:
        return (
            f"this CPU multiplies {1 / gain:.1f} times slower in bfloat16 than in float32: mixed_precision=false is faster "
            "here, and so is base.dtype=float32"
        )
    if not mixed_precision and gain > _WORTH_SAYING:
        return f"this CPU multiplies {gain:.1f} times faster in bfloat16: mixed_precision=true is faster for large models"
    return ""


def _seconds(dtype: torch.dtype) -> float:
    import torch

    left, right = (torch.ones(_SIZE, _SIZE, dtype=dtype) for _ in range(2))
    left @ right  # the first product also sets kernels up
    times = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return sorted(times)[_TRIALS // 2]
