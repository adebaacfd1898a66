"""What the page shows of steps that people labelled: a table for each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from e2h_pipeline.report.cells import Row, TableRow
from e2h_pipeline.report.evaluator_view import number_cell
from e2h_pipeline.report.levels import NUMBERED, LevelNames, levels_in
from e2h_pipeline.statistics.levels import POOLED_GROUPS

_SOURCES = {
    "prm800k": "PRM800K, human labels",
    "process_bench": "ProcessBench, MATH part",
    "mr_math": "MR-MATH",
}
_OWN = {
    "step_auroc": ("Step AUROC", "right steps above wrong ones"),
    "step_ece": ("Calibration error", "0 = honest scores"),
    "first_error_f1": ("First-error F1", "threshold of easy problems"),
    "first_error_accuracy_erroneous": ("First error named", "of wrong solutions"),
    "first_error_accuracy_correct": ("No error named", "of right solutions"),
}
_OVER = {"step_auroc_over": "Step AUROC over", "first_error_f1_over": "First-error F1 over"}
_EVALUATOR = "evaluator"


@dataclass(frozen=True)
class HumanStepsTable:
    """A source's table; `counts` says how many steps were judged by level."""

    caption: str
    columns: tuple[str, ...]
    rows: list[TableRow]


def human_steps_tables(rows: Sequence[Row], names: LevelNames = NUMBERED) -> list[HumanStepsTable]:
    """Tables of the rows of `human_steps.parquet`."""
    return [
        _table(source, [row for row in rows if row["source"] == source], names)
        for source in dict.fromkeys(row["source"] for row in rows)
    ]


def _table(source: str, rows: Sequence[Row], names: LevelNames) -> HumanStepsTable:
    there = {row["levels"] for row in rows}
    groups = (*levels_in(there), *(group for group in POOLED_GROUPS if group in there))
    found = {(row["judge"], row["metric"], row["levels"]): row for row in rows}

    def line(label: str, note: str, judge: str, metric: str, strong: bool) -> TableRow | None:
        cells = tuple(number_cell(found.get((judge, metric, group))) for group in groups)
        return TableRow(label, note, cells, strong) if any(cells) else None

    lines = [line(*told, _EVALUATOR, metric, True) for metric, told in _OWN.items()]
    for judge in dict.fromkeys(row["judge"] for row in rows if row["judge"] != _EVALUATOR):
        lines += [line(label, judge, judge, metric, False) for metric, (label, _) in _OWN.items()]
        lines += [line(f"{label} {judge}", "difference", judge, m, False) for m, label in _OVER.items()]
    caption = _SOURCES.get(source, source)
    return HumanStepsTable(caption, names.columns(groups), [row for row in lines if row is not None])
