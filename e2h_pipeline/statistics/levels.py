"""Levels of problems, and the groups of problems that results are reported for.

A domain has levels 1 to K, easiest first. K is not fixed: the levels are those that a table has. A
problem whose level is unknown is neither easy nor hard. It counts among all problems only. In
tables an unknown level is null, in arrays it is `UNKNOWN_LEVEL`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

UNKNOWN_LEVEL = 0
HIGHEST_LEVEL = 127
"""Tables keep levels in eight bits."""
POOLED_GROUPS = ("easy", "hard", "all")


def level_array(levels: Iterable[int | None]) -> NDArray[np.int64]:
    """Levels of a table's column as an array."""
    return np.array([UNKNOWN_LEVEL if level is None else level for level in levels], dtype=np.int64)


def level_column(levels: NDArray[np.integer]) -> list[int | None]:
    """An array of levels as values of a table's column."""
    return [None if level == UNKNOWN_LEVEL else level for level in levels.tolist()]


def known_levels(levels: NDArray[np.integer]) -> list[int]:
    """The levels that there are, easiest first, without unknown ones."""
    return [level for level in np.unique(levels).tolist() if level != UNKNOWN_LEVEL]


def level_groups(levels: NDArray[np.integer], easy_levels: Collection[int]) -> dict[str, NDArray[np.bool_]]:
    """Masks over problems: one for each level there is, then "easy", "hard" and "all"; no group is empty.

    Args:
        levels: (problems,)
        easy_levels: levels that count as easy; other known levels are hard.

    Returns:
        Name of a group to its mask, (problems,). A single level is named by its number.
    """
    easy, known = np.isin(levels, list(easy_levels)), levels != UNKNOWN_LEVEL
    groups = {str(level): levels == level for level in known_levels(levels)}
    groups |= {"easy": easy, "hard": known & ~easy, "all": np.ones(len(levels), dtype=bool)}
    return {name: mask for name, mask in groups.items() if mask.any()}


def is_single_level(group: str) -> bool:
    """Whether a group is one level, not a pooled one."""
    return group not in POOLED_GROUPS


def group_order(group: str) -> tuple[int, int]:
    """Sort key of groups: single levels, easiest first, then easy, hard and all."""
    return (0, int(group)) if is_single_level(group) else (1, POOLED_GROUPS.index(group))
