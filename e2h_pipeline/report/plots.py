"""Figures of the report as inline SVG: small panels with one message each.

Text stays text: it can be searched and copied, and takes the page's font. Ids are prefixed, so that a
page can hold many figures. Everything that names an address is cut out, and so is what only makes the
page larger. Markers and dashes tell lines apart in print, as colours (colors.py) do on a screen.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from e2h_pipeline.report.colors import FAINT, GRID, INK, themed
from e2h_pipeline.report.saving import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_WIDTH, _WIDE = 4.4, 5.6  # of a panel and a wide one, in inches
_CHARACTER = 0.075  # inches that a character below an axis takes
_MARGIN = 0.65  # inches of a figure left and right of its axes


@dataclass(frozen=True)
class Series:
    """A line or a set of bars: points with intervals, and how it looks everywhere in the page."""

    label: str
    color: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    marker: str = "o"
    dash: str = "-"


@dataclass(frozen=True)
class Legend:
    """A colour and what it stands for."""

    color: str
    label: str


class PlotDrawing(NamedTuple):
    """A figure.

    Attributes:
        svg: the element.
        legend: what stands above it.
        title: of the figure.
        csv: what is drawn, as a table.
    """

    svg: str
    legend: list[Legend]
    title: str
    csv: str


def legend_of(series: Sequence[Series]) -> list[Legend]:
    """The legend of a figure's lines or bars."""
    return [Legend(line.color, line.label) for line in series]


def accuracy_panel(title: str, series: Sequence[Series], bottom: float, top: float) -> PlotDrawing:
    """Accuracy in percent over N (doubling axis), with interval bands."""
    figure, axes = _figure()
    for line in series:
        _line(axes, line, band=True)
    axes.set_xscale("log", base=2)
    counts = sorted({x for line in series for x in line.x})
    ticks = counts if len(counts) <= 7 else counts[::2]
    axes.set_xticks(ticks, [f"{n:g}" for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="samples per problem, N", ylabel="accuracy, %", ylim=(bottom, top), title=title)
    return _drawing(figure, f"{title}: accuracy over the number of samples", series, ("N", "accuracy, %"))


def cost_panel(title: str, series: Sequence[Series]) -> PlotDrawing:
    """Accuracy in percent over tokens per problem (logarithmic axis); single points have whiskers."""
    figure, axes = _figure()
    for line in series:
        _line(axes, line, band=len(line.x) > 1)
        if len(line.x) == 1:
            axes.vlines(line.x, line.low, line.high, color=line.color, linewidth=1.4)
    axes.set_xscale("log")
    axes.set(xlabel="tokens per problem, drawn and read", ylabel="accuracy, %", title=title)
    axes.margins(x=0.04)
    return _drawing(figure, f"{title}: accuracy over tokens", series, ("tokens", "accuracy, %"))


def level_bars(title: str, groups: Sequence[str], series: Sequence[Series]) -> PlotDrawing:
    """Grouped bars in percent with interval whiskers; `series[i].x` are indices into `groups`."""
    figure, axes = _figure(_WIDE)
    width = 0.8 / max(1, len(series))
    for i, bars in enumerate(series):
        x = [value + (i - (len(series) - 1) / 2) * width for value in bars.x]
        axes.bar(x, bars.y, width * 0.88, color=bars.color)
        axes.vlines(x, bars.low, bars.high, color=INK, linewidth=0.9)
    _name_groups(axes, groups, _WIDE)
    axes.set(ylabel="accuracy, %", ylim=(0, 100), title=title)
    return _drawing(figure, f"{title}: bars by level", series, ("level", "accuracy, %"), groups)


def interval_panel(title: str, groups: Sequence[str], series: Sequence[Series], label: str) -> PlotDrawing:
    """AUROC with interval whiskers by group; `series[i].x` are indices into `groups`."""
    figure, axes = _figure()
    for i, points in enumerate(series):
        x = [value + (i - (len(series) - 1) / 2) * 0.18 for value in points.x]
        axes.vlines(x, points.low, points.high, color=points.color, linewidth=1.6)
        axes.plot(x, points.y, points.marker, color=points.color, markersize=5)
    axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
    _name_groups(axes, groups, _WIDTH)
    least = min([0.5, *(low for points in series for low in points.low)])
    axes.set(ylabel=label, ylim=(max(0.0, least - 0.03), 1.01), title=title)
    return _drawing(figure, f"{title} by level", series, ("level", label), groups)


def reliability_panel(title: str, series: Sequence[Series]) -> PlotDrawing:
    """Share of right items over the evaluator's score; the diagonal is perfect calibration."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
    for line in series:
        _line(axes, line, band=False)
    axes.set(xlabel="evaluator's score", ylabel="share right", xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    return _drawing(figure, f"{title}: share right over score", series, ("score", "share right"))


def axis_panel(axis: str, values: Sequence[str], series: Sequence[Series]) -> PlotDrawing:
    """Accuracy in percent over the values of a sweep's axis, with whiskers; `series[i].x` are indices into
    `values`."""
    figure, axes = _figure()
    for i, line in enumerate(series):
        x = [value + (i - (len(series) - 1) / 2) * 0.07 for value in line.x]
        axes.vlines(x, line.low, line.high, color=line.color, alpha=0.45, linewidth=1.4)
        axes.plot(x, line.y, line.marker, color=line.color, linestyle="-", markersize=5, linewidth=1.2)
    _name_groups(axes, values, _WIDTH)
    axes.set(xlabel=axis, ylabel="accuracy on hard levels, %", title=f"Over {axis}")
    axes.margins(x=0.08)
    return _drawing(figure, f"Accuracy over {axis}", series, (axis, "accuracy, %"), values)


def training_panel(title: str, series: Sequence[Series]) -> PlotDrawing:
    """Curves over updates."""
    figure, axes = _figure()
    for line in series:
        _line(axes, line, band=False)
    axes.set(xlabel="update", title=title)
    axes.margins(x=0.02)
    return _drawing(figure, f"{title} over updates", series, ("update", title))


def over_optimization_panel(title: str, series: Sequence[Series], chosen: float | None) -> PlotDrawing:
    """Gold accuracy and evaluator's score over the distance from the SFT policy.

    Args:
        chosen: distance of the checkpoint that was kept; None where it has none.
    """
    figure, axes = _figure()
    _over_distance(axes, title, series, chosen)
    told = f"{title}: gold accuracy and evaluator's score over KL"
    return _drawing(figure, told, series, ("root of KL", "%"))


def over_optimization_figure(panels: Sequence[tuple[str, Sequence[Series], float | None]]) -> Figure:
    """`over_optimization_panel`s side by side, with one legend, for a picture of its own."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * len(panels), 3.3), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _over_distance(axes, *panel)
        handles = figure.axes[0].get_lines()[: len(panels[0][1])]
        figure.legend(
            handles, [line.label for line in panels[0][1]], loc="outside lower center", ncols=2, frameon=False
        )
        return figure


def _drawing(
    figure: Figure,
    description: str,
    series: Sequence[Series],
    axes: tuple[str, str],
    groups: Sequence[str] = (),
) -> PlotDrawing:
    """A figure with its legend and its numbers.

    Args:
        axes: heads of the columns of x and y.
        groups: names of the places 0, 1, ... on the x axis.
    """
    rows = [
        (line.label, groups[int(x)] if groups else x, y, *bounds)
        for line in series
        for x, y, bounds in zip(line.x, line.y, _bounds(line), strict=True)
    ]
    table = csv_text(("series", *axes, "low", "high"), rows)
    return PlotDrawing(to_svg(figure, description), legend_of(series), description, table)


def _bounds(line: Series) -> Sequence[tuple[float | str, float | str]]:
    return list(zip(line.low, line.high, strict=True)) if line.low else [("", "")] * len(line.x)


def to_svg(figure: Figure, description: str) -> str:
    """A figure as an SVG element of a page: no prolog, metadata or addresses; ids of its own.

    Args:
        description: the picture's name for people who cannot see it.
    """
    import matplotlib

    sink = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = sink.getvalue()
    svg = _lean(svg[svg.index("<svg") :])
    prefix = f"p{zlib.crc32(description.encode()):08x}-"
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, reference + prefix)
    # The page decides the size; the viewBox keeps the shape.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    name = f'<svg role="img" aria-label="{escape(description)}"'
    return themed(svg.replace("<svg", name, 1))


def _lean(svg: str) -> str:
    """A figure of matplotlib without what no page needs, a third of its size."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # hundredths of a point
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><").replace(' "', '"')
    while svg != (svg := re.sub(r"<g/>|<g></g>", "", svg)):
        pass
    return svg


def _figure(width: float = _WIDTH, height: float = 3.1) -> tuple[Figure, Axes]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _name_groups(axes: Axes, groups: Sequence[str], width: float) -> None:
    """Names below their groups at x = 0, 1, ...; slanted where they would run into each other.

    Args:
        width: of the figure, in inches.
    """
    axes.set_xticks(range(len(groups)), list(groups))
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    room = (width - _MARGIN) / max(1, len(groups))
    if _CHARACTER * max(map(len, groups), default=0) > room:
        axes.tick_params("x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _line(axes: Axes, line: Series, *, band: bool) -> None:
    marker = line.marker if len(line.x) <= 20 else ""
    axes.plot(
        line.x, line.y, color=line.color, linestyle=line.dash, marker=marker, markersize=4, linewidth=1.8
    )
    if band and line.low:
        axes.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.14, linewidth=0)


def _over_distance(axes: Axes, title: str, series: Sequence[Series], chosen: float | None) -> None:
    for line in series:
        _line(axes, line, band=False)
        # The policy may come back, so x need not rise: whiskers, not a band.
        axes.vlines(line.x, line.low, line.high, color=line.color, alpha=0.35, linewidth=1.2)
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        at = axes.get_xaxis_transform()
        axes.annotate(
            "chosen",
            (chosen, 1),
            xycoords=at,
            xytext=(3, -2),
            textcoords="offset points",
            fontsize=8,
            va="top",
        )
    axes.set(xlabel="√KL to the SFT policy, per solution", ylabel="%", title=title)
    axes.margins(x=0.03)
