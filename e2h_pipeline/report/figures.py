"""Figures of reranking and accuracy: over the number of samples, and by level."""

from __future__ import annotations

from collections.abc import Iterator

from e2h_pipeline.report.colors import color_of
from e2h_pipeline.report.levels import LevelNames
from e2h_pipeline.report.names import marker_of, method_name, policy_name, short_name
from e2h_pipeline.report.plots import PlotDrawing, Series, accuracy_panel, level_bars
from e2h_pipeline.report.published import published_curves
from e2h_pipeline.report.results import Measured, Results

_READABLE = 40  # accuracies that all lie above this get an axis that does not start at zero


def rerank_curves(results: Results, benchmark: str) -> list[PlotDrawing]:
    """One panel of accuracy over N for each pooled level group, all on one scale."""
    panels = {levels: _curves(results, benchmark, levels) for levels in results.pooled}
    bottom, top = _limits([line for series in panels.values() for line in series])
    return [
        accuracy_panel(f"{short_name(benchmark)} · {group_title(results, levels)}", series, bottom, top)
        for levels, series in panels.items()
        if series
    ]


def _curves(results: Results, benchmark: str, levels: str) -> list[Series]:
    """The paper's curves, below ours, and ours."""
    ours = [_curve(results, method, aggregation, levels) for method, aggregation in results.methods()]
    return published_curves(benchmark, levels, results.n) + [line for line in ours if line.x]


def _limits(lines: list[Series]) -> tuple[float, float]:
    """Bottom and top of an axis on which all lines fit, in percent."""
    highest = max((y for line in lines for y in (*line.high, *line.y)), default=100)
    least = min((y for line in lines for y in (*line.low, *line.y)), default=0)
    bottom = 10 * ((least - 5) // 10) if least > _READABLE else 0
    return bottom, min(102.0, 5 * (highest // 5 + 1))


def _curve(results: Results, method: str, aggregation: str, levels: str) -> Series:
    rows = results.over_n(results.rerank_policy, method, aggregation, levels)
    bound = method == "pass"
    return Series(
        method_name(method, aggregation),
        color_of(method),
        [row["n"] for row in rows],
        [100 * row["accuracy"] for row in rows],
        () if bound else [100 * row["ci_low"] for row in rows],
        () if bound else [100 * row["ci_high"] for row in rows],
        marker_of(method),
        ":" if bound else "-",
    )


def accuracy_bars(results: Results, benchmark: str, names: LevelNames) -> list[PlotDrawing]:
    """Accuracy by level: of reranking methods at the largest N, and of policies' greedy answers."""
    charts = {
        f"{short_name(benchmark)} · reranking, N = {results.n}": _reranking_bars(results),
        f"{short_name(benchmark)} · policies, greedy": _policy_bars(results),
    }
    drawings = []
    for title, bars in charts.items():
        series = [one for one in bars if one.x]
        if series:
            drawings.append(level_bars(title, names.labels(results.levels), series))
    return drawings


def _reranking_bars(results: Results) -> Iterator[Series]:
    for method, aggregation in results.methods():
        if method != "pass":
            measured = results.reranked(method, aggregation)
            yield _bars(results, measured, method_name(method, aggregation), color_of(method))


def _policy_bars(results: Results) -> Iterator[Series]:
    for policy in results.policies:
        yield _bars(results, Measured(policy, "greedy"), policy_name(policy), color_of(policy))


def _bars(results: Results, measured: Measured, label: str, color: str) -> Series:
    found = [(i, results.get(measured, level)) for i, level in enumerate(results.levels)]
    there = [(i, row) for i, row in found if row is not None]
    return Series(
        label,
        color,
        [i for i, _ in there],
        [100 * row["accuracy"] for _, row in there],
        [100 * row["ci_low"] for _, row in there],
        [100 * row["ci_high"] for _, row in there],
    )


def group_title(results: Results, group: str) -> str:
    """A pooled group as a title: "Hard levels", or "All problems" where no levels are known."""
    return f"{group.capitalize()} {'levels' if results.levels else 'problems'}"
