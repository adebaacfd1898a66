"""The levels that tables tell of: which there are, and what people call them.

Tables have a column `levels` with one group of problems a row: a single level, by its number as text,
or `easy`, `hard` or `all`. How many levels there are depends on the domain. A problem of unknown level
counts among `all` and is shown nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from e2h_pipeline.statistics.levels import POOLED_GROUPS, UNKNOWN_LEVEL


def levels_in(groups: Iterable[str]) -> tuple[str, ...]:
    """The single levels among level groups, easiest first."""
    return tuple(sorted({g for g in groups if g.isdecimal() and int(g) != UNKNOWN_LEVEL}, key=int))


def pooled_in(groups: Iterable[str]) -> tuple[str, ...]:
    """The pooled groups among level groups, in the order of columns."""
    there = set(groups)
    return tuple(group for group in POOLED_GROUPS if group in there)


@dataclass(frozen=True)
class LevelNames:
    """What people call the levels of a domain.

    Attributes:
        names: of level 1, 2, ...; a level without a name goes by its number.
    """

    names: tuple[str, ...] = ()

    def column(self, group: str) -> str:
        """Head of a column: the name of a level or its number; pooled groups as they are."""
        return self._name(group) or group

    def columns(self, groups: Iterable[str]) -> tuple[str, ...]:
        """Heads of several columns."""
        return tuple(map(self.column, groups))

    def label(self, level: str) -> str:
        """A level where it stands alone: its name, or `level 3`."""
        return self._name(level) or (f"level {level}" if levels_in([level]) else "unknown level")

    def labels(self, levels: Iterable[str]) -> list[str]:
        """Several levels where each stands alone."""
        return list(map(self.label, levels))

    def _name(self, group: str) -> str:
        known = levels_in([group]) and int(group) <= len(self.names)
        return self.names[int(group) - 1] if known else ""


NUMBERED = LevelNames()
"""Levels that have numbers alone, as those of MATH and the ladder."""
