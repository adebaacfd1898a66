"""What the page shows of the evaluator: how well it ranks, and how honest its scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from e2h_pipeline.report.cells import Cell, Row, TableRow
from e2h_pipeline.report.levels import NUMBERED, LevelNames, levels_in
from e2h_pipeline.report.plots import PlotDrawing, Series, interval_panel, reliability_panel
from e2h_pipeline.statistics.levels import POOLED_GROUPS

_METRICS = {
    "step_auroc": ("Step AUROC", "right steps above wrong ones"),
    "step_auroc_within": ("Step AUROC", "within one problem"),
    "step_mean_right": ("Mean score of right steps", "sags where the evaluator drifts"),
    "step_mean_wrong": ("Mean score of wrong steps", ""),
    "step_ece": ("Calibration error of steps", "0 = honest scores"),
    "step_position_slope": ("Slope of right steps' scores", "per step of position"),
    "step_length_slope": ("Slope of right steps' scores", "per step of length"),
    "first_error_f1": ("First-error F1", "as in ProcessBench, threshold of easy validation"),
    "outcome_auroc": ("Solution AUROC", "right answers first"),
    "outcome_auroc_within": ("Solution AUROC", "within one problem: what reranking uses"),
    "outcome_mean_right": ("Mean score, right answer", ""),
    "outcome_mean_wrong": ("Mean score, wrong answer", ""),
    "outcome_ece": ("Calibration error of solutions", "0 = honest scores"),
    "generator_accuracy": ("Generator's accuracy", "mean over samples"),
    "step_auroc_kept": ("Step AUROC, lead kept", "of its lead over chance on easy levels"),
    "outcome_auroc_kept": ("Solution AUROC, lead kept", "of its lead over chance on easy levels"),
    "generator_accuracy_kept": ("Generator's accuracy kept", "of that on easy levels"),
    "step_auroc_kept_over_generator": ("Steps over generator", "above 0: the evaluator generalizes better"),
    "outcome_auroc_kept_over_generator": ("Solutions over generator", "lead kept, evaluator minus generator"),
}
_KINDS = {"step": ("Steps", "#0072b2", "o"), "outcome": ("Solutions", "#d55e00", "s")}
_GROUPS = {"easy": ("easy levels", "#009e73", "o"), "hard": ("hard levels", "#d55e00", "s")}


@dataclass(frozen=True)
class EvaluatorSection:
    """The evaluator's name, its table, and its panels."""

    evaluator: str
    columns: tuple[str, ...]
    rows: list[TableRow]
    panels: list[PlotDrawing]


def evaluator_section(
    metrics: Sequence[Row], bins: Sequence[Row], names: LevelNames = NUMBERED
) -> EvaluatorSection:
    """Table and panels of an evaluator_generalization artifact.

    Args:
        metrics: rows of its `metrics.parquet`.
        bins: rows of its `reliability.parquet`.
        names: what people call the levels.
    """
    levels = levels_in(row["levels"] for row in metrics)
    groups = (*levels, *POOLED_GROUPS)
    found = {(row["metric"], row["levels"]): row for row in metrics}
    rows = [
        TableRow(
            label, note, tuple(number_cell(found.get((metric, group))) for group in groups), "auroc" in metric
        )
        for metric, (label, note) in _METRICS.items()
        if any(name == metric for name, _ in found)
    ]
    panels = [panel for panel in (_auroc_panel(found, levels, names), *_reliability_panels(bins)) if panel]
    evaluator = ", ".join(sorted({row["evaluator"] for row in metrics}))
    return EvaluatorSection(evaluator, names.columns(groups), rows, panels)


def number_cell(row: Row | None) -> Cell | None:
    """A value and its interval, with three digits."""
    if row is None:
        return None
    numbers = tuple(float(row[name]) for name in ("value", "ci_low", "ci_high"))
    return Cell(_unit(row["value"]), f"{_unit(row['ci_low'])}–{_unit(row['ci_high'])}", numbers=numbers)


def _unit(value: float) -> str:
    """A number with three digits and no leading zero; never 1.000 by rounding alone."""
    if value > 0.9995 and value < 1:
        return ">.999"
    if value == 1:
        return "1"
    return f"{value:.3f}".replace("-0.", "\u2212.").removeprefix("0") if value < 1 else f"{value:.2f}"


def _auroc_panel(
    found: Mapping[tuple[str, str], Row], levels: Sequence[str], names: LevelNames
) -> PlotDrawing | None:
    """AUROC of steps and solutions by level; None where there is none."""
    series = []
    for kind, (label, color, marker) in _KINDS.items():
        points = [(i, found.get((f"{kind}_auroc", level))) for i, level in enumerate(levels)]
        there = [(i, row) for i, row in points if row is not None]
        if there:
            value, low, high = ([row[c] for _, row in there] for c in ("value", "ci_low", "ci_high"))
            series.append(Series(label, color, [i for i, _ in there], value, low, high, marker))
    if not series:
        return None
    return interval_panel("AUROC by level", names.labels(levels), series, "AUROC")


def _reliability_panels(bins: Sequence[Row]) -> list[PlotDrawing]:
    """Share right over score, of easy and hard levels: a panel for steps, one for solutions."""
    panels = []
    for kind, (label, _, _) in _KINDS.items():
        series = [
            Series(
                name, color, [r["mean_score"] for r in rows], [r["share_right"] for r in rows], marker=marker
            )
            for levels, (name, color, marker) in _GROUPS.items()
            if (rows := [r for r in bins if (r["kind"], r["levels"]) == (kind, levels)])
        ]
        if series:
            panels.append(reliability_panel(f"Reliability · {label.lower()}", series))
    return panels
