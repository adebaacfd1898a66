"""Colours of figures: those of Okabe and Ito (2008), which colour-blind readers tell apart.

Where a figure needs more colours than there are, neighbours are mixed. On a dark page every colour
that would be hard to see is lightened: a page names colours as CSS variables with the colour of paper
as what stands if they are not set, and defines them for dark screens alone.
"""

from __future__ import annotations

import re
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

INK, FAINT, GRID = "#3d4550", "#c9ced6", "#eceef2"
"""Text, axes and grid lines of figures."""

_DARK_PAPER = "#14181d"
_DARK = {INK: "#d3d9e1", FAINT: "#5b6573", GRID: "#2a313a"}
_CONTRAST = 4.5  # to dark paper; WCAG 2.2 asks it of text, and less of lines
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLE = re.compile(r"var\(--c-([0-9a-f]{6}),#\1\)")

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


def themed(text: str) -> str:
    """SVG or CSS whose colours a dark page may change."""
    return _COLOR.sub(lambda found: f"var(--c-{found[0][1:]},{found[0]})", text)


def plain(text: str) -> str:
    """The reverse of `themed`, for programs that know no variables."""
    return _VARIABLE.sub(r"#\1", text)


def dark_rules(page: str) -> str:
    """What a dark page sets the variables of its figures to, as CSS."""
    names = sorted({f"#{name}" for name in _VARIABLE.findall(page)})
    return "".join(f"--c-{name[1:]}:{on_dark(name)};" for name in names if on_dark(name) != name)


def on_dark(color: str) -> str:
    """A colour for dark paper: as it is where it can be seen, else mixed with as much white as it takes."""
    if color in _DARK:
        return _DARK[color]
    lighter = (_between((color, "#ffffff"), step / 20) for step in range(20))
    return next((one for one in lighter if contrast(one, _DARK_PAPER) >= _CONTRAST), "#ffffff")


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(color))
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _between(palette: Sequence[str], place: float) -> str:
    """The colour at a place on the way through a palette; its own colours are at 0, 1, 2, ..."""
    left = min(int(place), len(palette) - 2)
    share = place - left
    pairs = zip(_channels(palette[left]), _channels(palette[left + 1]), strict=True)
    return "#" + "".join(f"{round((1 - share) * a + share * b):02x}" for a, b in pairs)


def _channels(color: str) -> list[int]:
    """Red, green and blue, 0 to 255."""
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]
