"""The page of experiments side by side, from plain rows: numbers, curves in one picture, what differs upstream.

The first experiment is what the others are compared with. Experiments have letters, A for the first, and
one colour each in all figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from e2h_pipeline.artifacts.difference import grouped, reasons
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.report.cells import Cell, TableRow, accuracy_cell, difference_cell, signed
from e2h_pipeline.report.colors import mixed
from e2h_pipeline.report.levels import levels_in
from e2h_pipeline.report.names import method_name, policy_name
from e2h_pipeline.report.page import filled
from e2h_pipeline.report.plots import PlotDrawing, Series, accuracy_panel, training_panel
from e2h_pipeline.report.results import Results
from e2h_pipeline.report.rl_view import read_curves
from e2h_pipeline.statistics.multiple import CLEAR

MOST = len(ascii_uppercase)
"""Experiments that a page can name."""
_TEMPLATE = "compare.html.j2"
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
_GROUPS = ("hard", "all", "easy")
_TRAINING = {
    "easy_validation_accuracy": "Accuracy on easy validation problems",
    "reward": "Reward per completion",
    "kl": "KL to the SFT policy, per token",
}
_VERSION_LENGTH = 12


@dataclass(frozen=True)
class _Table:
    """Numbers of one benchmark on one group of levels."""

    caption: str
    columns: list[str]
    rows: list[TableRow]


def compare_html(compared: Mapping[str, Any], folders: Sequence[tuple[Path, Path | None]], told: str) -> str:
    """The page.

    Args:
        compared: as of `orchestration.comparison.compare`.
        folders: of each experiment the folder of its numbers, and of its policy.
        told: the time of the page.
    """
    sides = compared["experiments"]
    letters = ascii_uppercase[: len(sides)]
    colors = mixed(_PALETTE, len(sides))
    tables = _tables(compared["numbers"], letters)
    return filled(
        _TEMPLATE,
        sides=[
            {
                **side,
                "letter": letter,
                "color": color,
                "easy": ", ".join(version[:_VERSION_LENGTH] for version in side["easy_data_version"]),
                "version": side["data_version"][:_VERSION_LENGTH],
            }
            for side, letter, color in zip(sides, letters, colors, strict=True)
        ],
        tables=tables,
        comparisons=sum(
            1 for row in compared["numbers"] for one in row["differences"] if one and one["paired"]
        ),
        confidence=compared["confidence"],
        curves=_rerank_panels([folder for folder, _ in folders], letters, colors),
        training=_training_panels([folder for _, folder in folders], letters, colors),
        upstream=[
            _upstream(one, letter) for one, letter in zip(compared["upstream"], letters[1:], strict=True)
        ],
        told=told,
    )


def _tables(numbers: Sequence[Mapping[str, Any]], letters: str) -> list[_Table]:
    columns = [letters[0], *(head for other in letters[1:] for head in (other, f"{other} − {letters[0]}"))]
    found = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in numbers):
        own = [row for row in numbers if row["benchmark"] == benchmark]
        there = {row["levels"] for row in own}
        for group in (*(group for group in _GROUPS if group in there), *levels_in(there)):
            rows = [_table_row(row) for row in own if row["levels"] == group]
            title = f"level {group}" if group.isdecimal() else f"{group} levels"
            found.append(_Table(f"{benchmark}, {title}", columns, rows))
    return found


def _table_row(row: Mapping[str, Any]) -> TableRow:
    first, *others = (accuracy_cell(value) if value else None for value in row["values"])
    cells = [first]
    for value, difference in zip(others, row["differences"], strict=True):
        cells += [value, _difference(difference)]
    label = f"{policy_name(row['policy'])}, {method_name(row['method'], row['aggregation'])}"
    return TableRow(label, f"N = {row['n']}" if row["n"] > 1 else "", tuple(cells))


def _difference(row: Mapping[str, Any] | None) -> Cell | None:
    if row is None:
        return None
    if not row["paired"]:
        return Cell(signed(100 * row["difference"]), "other problems", numbers=(100 * row["difference"],))
    return difference_cell({**row, "clear": row["holm"] < CLEAR})


def _rerank_panels(folders: Sequence[Path], letters: str, colors: Sequence[str]) -> list[PlotDrawing]:
    """Accuracy over N of all experiments in one picture for each benchmark, on hard levels (all where
    levels are unknown): weighted votes as lines, the majority vote dotted."""
    found: dict[str, list[Series]] = {}
    for folder, letter, color in zip(folders, letters, colors, strict=True):
        rows = read_table(folder / "metrics.parquet").to_pylist()
        for benchmark in sorted({row["benchmark"] for row in rows}):
            results = Results(row for row in rows if row["benchmark"] == benchmark)
            group = "hard" if "hard" in results.pooled else "all"
            lines = [
                _curve(results, method, group, f"{letter}: {method_name(method[0])}", color)
                for method in results.methods()
                if method[0] in ("majority", "weighted-vote")
            ]
            found.setdefault(f"{benchmark} · {group} levels", []).extend(line for line in lines if line.x)
    return [accuracy_panel(title, lines, *_limits(lines)) for title, lines in found.items() if lines]


def _curve(results: Results, method: tuple[str, str], group: str, label: str, color: str) -> Series:
    rows = results.over_n(results.rerank_policy, *method, group)
    x, y = [row["n"] for row in rows], [100 * row["accuracy"] for row in rows]
    plain = method[0] == "majority"
    return Series(label, color, x, y, marker="o" if plain else "s", dash=":" if plain else "-")


def _limits(lines: Sequence[Series]) -> tuple[float, float]:
    values = [y for line in lines for y in line.y]
    return max(0.0, 10 * ((min(values) - 5) // 10)), min(102.0, max(values) + 5)


def _training_panels(
    folders: Sequence[Path | None], letters: str, colors: Sequence[str]
) -> list[PlotDrawing]:
    """Curves of the training of all policies in one picture for each measure; none where fewer than two
    were trained so."""
    curves = [read_curves(folder / "curves.jsonl") if folder else [] for folder in folders]
    panels = []
    for name, title in _TRAINING.items():
        series = [
            Series(letter, color, [x for x, _ in there], [y for _, y in there])
            for rows, letter, color in zip(curves, letters, colors, strict=True)
            if (there := [(row["update"], row[name]) for row in rows if row.get(name) is not None])
        ]
        if len(series) > 1:
            panels.append(training_panel(title, series))
    return panels


def _upstream(one: Mapping[str, Any], letter: str) -> dict[str, Any]:
    return {
        "letter": letter,
        "roots": [
            {
                "asset": asset["asset"],
                "first": asset["first"]["data_version"][:_VERSION_LENGTH],
                "second": asset["second"]["data_version"][:_VERSION_LENGTH],
                "reasons": reasons(asset),
            }
            for asset in one["assets"]
            if asset["root"]
        ],
        "others": grouped(one["assets"], ascii_uppercase[0], letter),
    }
