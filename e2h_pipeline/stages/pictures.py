"""Small pictures for Dagster's page: panels of curves or bars in one SVG, drawn without a library.

A stage waits for its pictures. Matplotlib takes a tenth of a second per panel; this takes a
millisecond for all of them. Colours are from Okabe and Ito (2008). The background is white, so that
pictures are readable in dark themes.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from e2h_pipeline.report.colors import mixed

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7")
_INK, _FAINT = "#3d4550", "#e3e6eb"
_WIDTH, _HEIGHT, _COLUMNS = 260, 170, 3  # size of a panel in pixels; panels side by side
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 36, 26  # margins of a panel
_CHARACTER = 6.3  # width of a bold character, in pixels
_SQUEEZED = 2  # a legend wider than its room by this factor is unreadable
_MOST_POINTS = 120  # per curve, because Dagster's event log stores the pictures
_FEW_POINTS = 12  # up to this many points of a curve are marked
_LEVELS = re.compile(r"(.+)_(easy|hard|level_\d+)")
_LEVEL = "level "


@dataclass(frozen=True)
class PictureCurve:
    """Points in the order of x; `low` and `high`, if given, are the ends of intervals."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Curves on the same axes."""

    title: str
    curves: Sequence[PictureCurve]


def training_panels(rows: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """A panel for each metric of a training over its updates.

    Easy, hard and single levels of a metric share a panel. Questions of unknown level (0) have no
    curve of their own: they count among all.

    Args:
        rows: lines of `curves.jsonl`: `update`, and numbers by name. A name that ends in `_easy`,
            `_hard` or `_level_3` is a metric of these questions alone.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name == "update" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            parts = _LEVELS.fullmatch(name)
            title, label = (parts[1], parts[2]) if parts else (name, "all")
            if label == "level_0":
                continue
            found.setdefault(title, {}).setdefault(label, []).append((row["update"], value))
    return [
        Panel(
            title.replace("_", " "),
            [
                PictureCurve(label.replace("_", " "), *zip(*points, strict=True))
                for label, points in sorted(named.items(), key=_in_order)
            ],
        )
        for title, named in found.items()
    ]


def _in_order(named: tuple[str, Any]) -> tuple[str, int]:
    """Sort key of curves by label: names first, then levels by number."""
    name, _, number = named[0].rpartition("_")
    return (name, int(number)) if number.isdecimal() else (named[0], 0)


def curve_picture(panels: Sequence[Panel], x_label: str, *, doubling: bool = False) -> str:
    """Panels of curves as a Markdown image.

    Args:
        doubling: put 1, 2, 4, 8 ... at equal distances.
    """
    return _picture([_curves(panel, x_label, math.log2 if doubling else float) for panel in panels])


def bar_picture(panels: Mapping[str, Mapping[str, float]]) -> str:
    """Panels of bars as a Markdown image: title -> label -> height."""
    return _picture([_bars(title, bars) for title, bars in panels.items()])


def _picture(panels: Sequence[str]) -> str:
    columns = min(_COLUMNS, len(panels))
    width, height = columns * _WIDTH, -(-len(panels) // _COLUMNS) * _HEIGHT
    placed = "".join(
        f'<g transform="translate({i % _COLUMNS * _WIDTH} {i // _COLUMNS * _HEIGHT})">{panel}</g>'
        for i, panel in enumerate(panels)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="10" fill="{_INK}">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{placed}</svg>'
    )
    return f"![](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _curves(panel: Panel, x_label: str, scale: Callable[[float], float]) -> str:
    curves = [_thinned(curve) for curve in panel.curves]
    xs = [scale(x) for curve in curves for x in curve.x]
    ys = [y for curve in curves for values in (curve.y, curve.low, curve.high) for y in values]
    across = _axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    low, high = _widened(min(ys), max(ys))
    up = _axis(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = [_title(panel.title), _grid(low, high, up), *_x_labels(panel, x_label)]
    if len(curves) > 1:
        parts.append(_legend([curve.label for curve in curves]))
    for curve, color in zip(curves, mixed(_COLORS, len(curves)), strict=True):
        x = [across(scale(value)) for value in curve.x]
        if curve.low:
            around = [*zip(x, map(up, curve.high), strict=True), *zip(x, map(up, curve.low), strict=True)]
            outline = [*around[: len(x)], *reversed(around[len(x) :])]
            parts.append(f'<polygon points="{_points(outline)}" fill="{color}" opacity=".14"/>')
        line = list(zip(x, map(up, curve.y), strict=True))
        parts.append(f'<polyline points="{_points(line)}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        if len(line) <= _FEW_POINTS:
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2" fill="{color}"/>' for px, py in line]
    return "".join(parts)


def _bars(title: str, bars: Mapping[str, float]) -> str:
    up = _axis(0, max(bars.values(), default=0) or 1, _HEIGHT - _BOTTOM, _TOP)
    room = (_WIDTH - _LEFT - _RIGHT) / max(len(bars), 1)
    parts = [_title(title)]
    for i, (label, value) in enumerate(bars.items()):
        left, middle, top = _LEFT + (i + 0.15) * room, _LEFT + (i + 0.5) * room, up(value)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{0.7 * room:.1f}" height="{_HEIGHT - _BOTTOM - top:.1f}" '
            f'fill="{_COLORS[0]}"/>'
        )
        parts.append(_text(middle, top - 3, f"{value:,.10g}", "middle"))
        parts.append(_text(middle, _HEIGHT - _BOTTOM + 13, label, "middle"))
    return "".join(parts)


def _thinned(curve: PictureCurve) -> PictureCurve:
    """Every k-th point, and the last one."""
    step = -(-len(curve.x) // _MOST_POINTS)
    if step == 1:
        return curve
    kept = [*range(0, len(curve.x) - 1, step), len(curve.x) - 1]
    parts = (
        [values[i] for i in kept] if values else () for values in (curve.x, curve.y, curve.low, curve.high)
    )
    return PictureCurve(curve.label, *parts)


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Map values to pixels; a single value is put in the middle."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Add a little room above and below; more if all values are equal."""
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers within an axis."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _grid(low: float, high: float, up: Callable[[float], float]) -> str:
    lines = []
    for tick in _ticks(low, high):
        y = up(tick)
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_FAINT}"/>')
        lines.append(_text(_LEFT - 4, y + 3, f"{tick:.4g}", "end"))
    return "".join(lines)


def _x_labels(panel: Panel, label: str) -> list[str]:
    xs = [x for curve in panel.curves for x in curve.x]
    y, middle = _HEIGHT - _BOTTOM + 14, (_LEFT + _WIDTH - _RIGHT) / 2
    ends = [_text(_LEFT, y, f"{min(xs):g}", "start")] if min(xs) < max(xs) else []
    return [*ends, _text(middle, y, label, "middle"), _text(_WIDTH - _RIGHT, y, f"{max(xs):g}", "end")]


def _legend(labels: Sequence[str]) -> str:
    """Names in the colours of their curves, in one line.

    Wide legends are squeezed; many levels are shown by number alone.
    """
    room = _WIDTH - _LEFT - _RIGHT
    if _wide(labels) > _SQUEEZED * room:
        labels = [label.removeprefix(_LEVEL) for label in labels]
    spans = "".join(
        f'<tspan fill="{color}" dx="{6 if i else 0}">{escape(label)}</tspan>'
        for i, (label, color) in enumerate(zip(labels, mixed(_COLORS, len(labels)), strict=True))
    )
    squeezed = f' textLength="{room}" lengthAdjust="spacingAndGlyphs"' if _wide(labels) > room else ""
    return f'<text x="{_LEFT}" y="28" font-weight="600"{squeezed}>{spans}</text>'


def _wide(labels: Sequence[str]) -> float:
    """Width of a legend in pixels."""
    return sum(map(len, labels)) * _CHARACTER + 6 * len(labels)


def _title(text: str) -> str:
    return f'<text x="{_LEFT}" y="15" font-size="11" font-weight="700">{escape(text)}</text>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
