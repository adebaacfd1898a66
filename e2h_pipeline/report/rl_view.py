"""What the page shows of reinforcement learning: curves of the training, and the audit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.report.cells import Cell, Row, TableRow, accuracy_cell, difference_cell
from e2h_pipeline.report.colors import level_colors
from e2h_pipeline.report.levels import NUMBERED, LevelNames, levels_in
from e2h_pipeline.report.plots import (
    PlotDrawing,
    Series,
    over_optimization_figure,
    over_optimization_panel,
    training_panel,
)

# Panel title -> curves (name in curves.jsonl, label); colours in this order.
_TRAINING = {
    "Reward per completion": {"reward": "reward"},
    "Evaluator's score": {"evaluator_easy": "easy questions", "evaluator_hard": "hard questions"},
    "Accuracy on easy questions": {
        "easy_accuracy": "rollouts",
        "easy_validation_accuracy": "validation, greedy",
    },
    "KL to the SFT policy, per token": {"kl": "KL"},
    "Entropy, per token": {"entropy": "entropy"},
    "Explained variance of the critic": {"explained_variance": "explained variance"},
    "Clipped tokens, share": {"clip_fraction": "clipped"},
    "Steps per completion": {"steps": "steps"},
    "Tokens per completion": {"tokens": "tokens"},
    "No answer, share of completions": {"no_answer": "no answer"},
}
_COLORS = ("#0072b2", "#d55e00")
_MEASURES = {
    "gold_accuracy": ("Gold accuracy", "#0072b2", "o", "-"),
    "evaluator_score": ("Evaluator's score", "#d55e00", "s", "--"),
}
_TABLE = {
    "gold_accuracy": "gold accuracy",
    "evaluator_score": "evaluator's score",
    "gap": "score minus accuracy",
}
_GROUPS = {"hard": "Hard levels", "easy": "Easy levels"}
_UNGROUPED = {"all": "All levels"}
_MOMENTS = ("first updates", "chosen checkpoint", "last updates")


@dataclass(frozen=True)
class AuditSection:
    """Gold accuracy of the rollouts, next to what the evaluator said.

    Attributes:
        moments: columns of `rows`.
        findings: a sentence per level group.
        panels: over-optimization plots, then gold accuracy by level.
    """

    moments: tuple[str, ...]
    rows: list[TableRow]
    findings: list[str]
    panels: list[PlotDrawing]


def training_panels(folder: Path | None) -> list[PlotDrawing]:
    """Panels of the RL curves that are there; a curve may have points at some updates only."""
    if folder is None or not (folder / "curves.jsonl").is_file():
        return []
    rows = read_curves(folder / "curves.jsonl")
    panels = []
    for title, named in _TRAINING.items():
        series = [
            Series(label, color, [x for x, _ in there], [y for _, y in there])
            for (name, label), color in zip(named.items(), _COLORS, strict=False)
            if (there := [(row["update"], row[name]) for row in rows if row.get(name) is not None])
        ]
        if series:
            panel = training_panel(title, series)
            panels.append(panel if len(named) > 1 else panel._replace(legend=[]))
    return panels


def read_curves(path: Path) -> list[dict[str, Any]]:
    """Lines of a `curves.jsonl`.

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict) or "update" not in row:
                raise ValueError(f"{path} line {number}: not an object with a field 'update'; train again")
            rows.append(row)
    return rows


def audit_section(folder: Path | None, names: LevelNames = NUMBERED) -> AuditSection | None:
    """Table and plots of an rl_audit artifact; None where there was nothing to audit.

    Args:
        folder: of the artifact, None where there is none.
        names: what people call the levels.
    """
    if folder is None or not (folder / "curves.parquet").is_file():
        return None
    rows = read_table(folder / "curves.parquet").to_pylist()
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    panels = [over_optimization_panel(*panel) for panel in _over_kl(rows)]
    by_level = _level_series(rows, names)
    if by_level:
        panels.append(training_panel("Gold accuracy by level, %", by_level))
    return AuditSection(_MOMENTS, _table_rows(rows), _findings(figures, _groups(rows)), panels)


def over_optimization_png(rows: Sequence[Row], path: Path) -> None:
    """Draw the over-optimization plots of `curves.parquet` as one picture; none where no row has a KL."""
    panels = _over_kl(rows)
    if panels:
        # A fixed metadata set keeps the file's bytes equal for equal numbers.
        over_optimization_figure(panels).savefig(path, dpi=100, metadata={"Software": None})


def _over_kl(rows: Sequence[Row]) -> list[tuple[str, list[Series], float | None]]:
    """Title, curves and place of the chosen checkpoint, of hard and easy levels."""
    found = []
    for group, title in _groups(rows).items():
        own = [row for row in rows if row["levels"] == group and row["kl"] is not None]
        x = [math.sqrt(max(0.0, row["kl"])) for row in own]
        series = []
        for measure, (label, color, marker, dash) in _MEASURES.items():
            y, low, high = ([100 * row[f"{measure}{part}"] for row in own] for part in ("", "_low", "_high"))
            series.append(Series(label, color, x, y, low, high, marker, dash))
        chosen = next((at for at, row in zip(x, own, strict=True) if row["chosen"]), None)
        found += [(title, series, chosen)] if own else []
    return found


def _groups(rows: Sequence[Row]) -> Mapping[str, str]:
    """Level groups that are shown apart, with titles; all as one where none are easy or hard."""
    return _GROUPS if any(row["levels"] in _GROUPS for row in rows) else _UNGROUPED


def _level_series(rows: Sequence[Row], names: LevelNames) -> list[Series]:
    """Gold accuracy over updates, a line for each level."""
    levels = levels_in(row["levels"] for row in rows)
    series = []
    for level, color in zip(levels, level_colors(levels), strict=True):
        own = [row for row in rows if row["levels"] == level]
        x = [(row["first_update"] + row["last_update"]) / 2 for row in own]
        series.append(Series(names.label(level), color, x, [100 * row["gold_accuracy"] for row in own]))
    return series


def _table_rows(rows: Sequence[Row]) -> list[TableRow]:
    """Gold, evaluator and their gap at the start, at the chosen checkpoint and at the end."""
    found = []
    for group, title in _groups(rows).items():
        own = [row for row in rows if row["levels"] == group]
        if not own:
            continue
        moments = (own[0], next((row for row in own if row["chosen"]), None), own[-1])
        for measure, label in _TABLE.items():
            cells = tuple(None if row is None else _cell(row, measure) for row in moments)
            found.append(TableRow(title, label, cells, strong=measure == "gold_accuracy"))
    return found


def _cell(row: Row, measure: str) -> Cell:
    """A share in percent; the gap as a difference in points."""
    kind, shown = ("difference", difference_cell) if measure == "gap" else ("accuracy", accuracy_cell)
    return shown(
        {
            kind: row[measure],
            "ci_low": row[f"{measure}_low"],
            "ci_high": row[f"{measure}_high"],
            "problems": row["problems"],
        }
    )


def _findings(figures: Mapping[str, Any], groups: Mapping[str, str]) -> list[str]:
    """A sentence for each level group: over-optimized or not, and the correlation of score and accuracy."""
    found = []
    for group, title in groups.items():
        own = figures["levels"].get(group)
        if own is None:
            continue
        if own["over_optimized"]:
            (first, last), (worse, worse_last) = own["best_updates"], own["worse_updates"]
            verdict = (
                f"over-optimized: accuracy was best in updates {first} to {last}, and in updates {worse} to "
                f"{worse_last} it had fallen while the score had risen"
            )
        else:
            verdict = "no fall of accuracy while the score rose, beyond noise"
        rank = own["spearman"]
        told = (
            "" if rank is None else f"; rank correlation of the two over {own['windows']} windows {rank:+.2f}"
        )
        found.append(f"{title}: {verdict}{told}.".replace("-0", "\u22120"))
    return found
