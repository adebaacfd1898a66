"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

LEVELS = (1, 2, 3, 4, 5)
NO_LEVEL = 0  # a problem of unknown level is neither easy nor hard
GROUPS = (*(str(level) for level in LEVELS), "easy", "hard", "all")


def level_groups(levels: NDArray[np.integer], easy_levels: Collection[int]) -> dict[str, NDArray[np.bool_]]:
    """Masks over problems for each level, "easy", "hard" and "all"; groups without problems are left out."""
    easy, known = np.isin(levels, list(easy_levels)), levels != NO_LEVEL
    groups = {str(level): levels == level for level in LEVELS}
    groups |= {"easy": easy, "hard": known & ~easy, "all": np.ones(len(levels), dtype=bool)}
    return {name: mask for name, mask in groups.items() if mask.any()}
