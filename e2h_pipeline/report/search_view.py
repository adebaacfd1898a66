"""What the page says about searches: accuracy against compute, and differences at equal compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from e2h_pipeline.report.cells import Cell, Row, TableRow, accuracy_cell, difference_cell
from e2h_pipeline.report.colors import mixed
from e2h_pipeline.report.plots import PlotDrawing, Series, cost_panel

_GROUPS = ("easy", "hard", "all")
_PALETTE = ("#5f6875", "#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7")
_VOTE, _MAJORITY = "weighted-vote", "majority"
_INDEPENDENT, _GREEDY = "independent", "greedy"


@dataclass(frozen=True)
class SearchSection:
    """Everything the page says about searches.

    Attributes:
        columns: level groups, the columns of the tables.
        curves: a panel for each group.
        differences: searches at their largest n, minus weighted votes at equal tokens.
        optimal: the compute-optimal answer of each budget.
        exploited: where accuracy falls while the evaluator's score rises.
        seconds: of each pool, per problem.
    """

    columns: list[str]
    curves: list[PlotDrawing]
    differences: list[TableRow]
    optimal: list[TableRow]
    exploited: list[str]
    seconds: list[TableRow]


def search_section(
    tables: Mapping[str, Sequence[Row]], seconds: Mapping[str, Mapping[str, float]]
) -> SearchSection:
    """Of the tables of a search_metrics artifact, by name, and its seconds."""
    metrics = tables["metrics"]
    groups = [group for group in _GROUPS if any(row["levels"] == group for row in metrics)]
    falls = [row for row in tables["exploited"] if row["falls"] and row["levels"] in groups]
    return SearchSection(
        groups,
        [_panel(metrics, group) for group in groups],
        _differences(tables["differences"], groups),
        _optimal(tables["optimal"], groups),
        [f"{row['method']}, {row['levels']}: best of {row['n']}" for row in falls],
        [
            TableRow(name, ", ".join(parts), (Cell(f"{spent:.3f}", "", numbers=(spent,)),))
            for name, parts in seconds.items()
            for spent in [sum(_spent(parts))]
        ],
    )


def _spent(parts: Mapping[str, float]) -> list[float]:
    """Seconds without counting twice: `all` holds drawing and scoring."""
    return [value for name, value in parts.items() if name not in ("drawing", "scoring")]


def _panel(metrics: Sequence[Row], group: str) -> PlotDrawing:
    lines: dict[str, list[Row]] = {}
    for row in metrics:
        votes = row["method"].endswith(_VOTE)
        plain = row["method"] in (_GREEDY, f"{_INDEPENDENT} {_MAJORITY}")
        if row["levels"] == group and (votes or plain):
            lines.setdefault(row["method"], []).append(row)
    colors = mixed(_PALETTE, len(lines))
    series = [_line(name, color, rows) for (name, rows), color in zip(lines.items(), colors, strict=True)]
    title = f"{metrics[0]['benchmark']} · {'all problems' if group == 'all' else f'{group} levels'}"
    return cost_panel(title, series)


def _line(name: str, color: str, rows: Sequence[Row]) -> Series:
    return Series(
        name.removesuffix(f" {_VOTE}") if not name.startswith(_INDEPENDENT) else name,
        color,
        [row["tokens"] for row in rows],
        [100 * row["accuracy"] for row in rows],
        [100 * row["ci_low"] for row in rows],
        [100 * row["ci_high"] for row in rows],
        marker="D" if len(rows) == 1 else "o",
    )


def _differences(rows: Sequence[Row], groups: Sequence[str]) -> list[TableRow]:
    wanted = [
        row for row in rows if row["at_equal"] == "tokens" and row["second"] == f"{_INDEPENDENT} {_VOTE}"
    ]
    largest = {row["first"]: row["n"] for row in sorted(wanted, key=lambda row: row["n"])}
    found: dict[str, dict[str, Row]] = {}
    for row in wanted:
        if row["n"] == largest[row["first"]]:
            found.setdefault(row["first"], {})[row["levels"]] = row
    return [
        TableRow(
            name,
            f"n = {largest[name]}",
            tuple(difference_cell(cells[g]) if g in cells else None for g in groups),
        )
        for name, cells in found.items()
    ]


def _optimal(rows: Sequence[Row], groups: Sequence[str]) -> list[TableRow]:
    found: dict[float, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["budget"], {})[row["levels"]] = row
    return [
        TableRow(
            f"{budget:.0f} tokens",
            cells["hard"]["chosen"] if "hard" in cells else "",
            tuple(accuracy_cell(cells[g]) if g in cells else None for g in groups),
        )
        for budget, cells in found.items()
    ]
