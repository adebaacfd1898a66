"""Colours of figures: those of Okabe and Ito (2008), which colour-blind readers tell apart.

Where a figure needs more colours than there are, neighbours are mixed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

COLORS: Mapping[str, str] = {
    "majority": "#5f6875",
    "weighted-vote": "#0072b2",
    "best-of-n": "#d55e00",
    "pass": "#a7aeb9",
    "base": "#a7aeb9",
    "sft": "#56b4e9",
    "rl": "#009e73",
}
"""Colours of the methods and policies of this project."""

_OTHERS = ("#cc79a7", "#e69f00", "#7a5195", "#8c6d31")
_LEVELS = ("#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#882255")


def color_of(word: str) -> str:
    """Colour of a method or policy; an unknown word always gets the same one."""
    return COLORS.get(word) or _OTHERS[zlib.crc32(word.encode()) % len(_OTHERS)]


def level_colors(levels: Sequence[str]) -> list[str]:
    """A colour for each level, blue for the easiest.

    Args:
        levels: numbers from 1 as text. The hardest of them decides how many colours there are.
    """
    palette = mixed(_LEVELS, max(map(int, levels), default=0))
    return [palette[int(level) - 1] for level in levels]


def mixed(palette: Sequence[str], count: int) -> list[str]:
    """`count` different colours: the first of a palette, or mixtures where it has too few.

    Args:
        palette: two colours or more, `#rrggbb`.
    """
    if count <= len(palette):
        return list(palette[:count])
    places = [i * (len(palette) - 1) / (count - 1) for i in range(count)]
    return [_between(palette, place) for place in places]


def _between(palette: Sequence[str], place: float) -> str:
    """The colour at a place on the way through a palette; its own colours are at 0, 1, 2, ..."""
    left = min(int(place), len(palette) - 2)
    share = place - left
    pairs = zip(_channels(palette[left]), _channels(palette[left + 1]), strict=True)
    return "#" + "".join(f"{round((1 - share) * a + share * b):02x}" for a, b in pairs)


def _channels(color: str) -> list[int]:
    """Red, green and blue, 0 to 255."""
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]
