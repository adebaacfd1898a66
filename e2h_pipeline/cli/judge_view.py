"""Output of `e2h judge`: what was judged and by which rule, and a table by group and levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from e2h_pipeline.cli.grading_view import plain
from e2h_pipeline.cli.view import console, marked, print_notes, print_titled
from e2h_pipeline.evaluation.human_steps import BASELINE, EVALUATOR
from e2h_pipeline.statistics.levels import group_order, is_single_level

Row = Mapping[str, Any]

# Title, judge and metric of each column.
_COLUMNS = (
    ("first-error F1", EVALUATOR, "first_error_f1"),
    ("error named", EVALUATOR, "first_error_accuracy_erroneous"),
    ("none named", EVALUATOR, "first_error_accuracy_correct"),
    ("F1 over control", BASELINE, "first_error_f1_over"),
    ("PRMScore", EVALUATOR, "prm_score"),
    ("control's PRMScore", BASELINE, "prm_score"),
    ("step AUROC", EVALUATOR, "step_auroc"),
    ("AUROC over control", BASELINE, "step_auroc_over"),
)


def print_judged(told: Mapping[str, Any], rows: Sequence[Row], everything: bool) -> None:
    """The summary and the numbers, with intervals below them."""
    evaluator = marked(plain(told["evaluator"]), told)
    print_titled(
        escape(f"{plain(told['file'])}: {told['solutions']:,} solutions, judged by {evaluator}"),
        _table(rows, everything),
    )
    out, threshold, control = console(), told["threshold"], told["control"]
    style = "" if threshold["for_claims"] else "[red]"
    out.print(f"{style}threshold {threshold['value']:.4f}: {threshold['told']}", soft_wrap=True)
    if control["threshold"] is not None:
        out.print(
            f"control: {control['name']} of a step, taught on {control['taught_on']}; its threshold,"
            f" {control['threshold']:.4f}, is the oracle's",
            soft_wrap=True,
        )
    counted = [f"{number:,} {name}" for name, number in told["counts"].items() if number and name != "lines"]
    if counted:
        out.print(escape("; ".join(counted)), soft_wrap=True)
    print_notes(evaluator, told)


def _table(rows: Sequence[Row], everything: bool) -> Table:
    found = {(row["group"], row["levels"], row["judge"], row["metric"]): row for row in rows}
    columns = [
        (title, judge, metric)
        for title, judge, metric in _COLUMNS
        if any((judge, metric) == (row["judge"], row["metric"]) for row in rows)
    ]
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    for title, _, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for group in dict.fromkeys(row["group"] for row in rows):
        levels = {row["levels"] for row in rows if row["group"] == group}
        shown = sorted((one for one in levels if everything or not is_single_level(one)), key=group_order)
        for level in reversed(shown):  # all first, then its parts
            cells = [_cell(found.get((group, level, judge, metric))) for _, judge, metric in columns]
            name = (
                plain(group)
                if level == "all"
                else f"  level {level}"
                if is_single_level(level)
                else f"  {level}"
            )
            table.add_row(escape(name), *cells)
    return table


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.3f}\n" + escape(f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]")
