"""TODO: docstring."""

from __future__ import annotations

from e2h_pipeline.report.cells import Legend
from e2h_pipeline.report.names import (
    COLORS,
    LEVELS,
    MARKERS,
    POLICY_NAMES,
    method_name,
    short_name,
)
from e2h_pipeline.report.plots import Series, accuracy_panel, level_bars
from e2h_pipeline.report.published import published_curves
from e2h_pipeline.report.results import Results

_READABLE = 40  # accuracies that all lie above this get an axis that does not start at zero


def rerank_curves(results: Results, benchmark: str) -> list[str]:
    """One panel of accuracy over N per pooled group, on one scale."""
    lines = {
        levels: published_curves(benchmark, levels, results.n)  # below ours
        + [
            line
            for method, aggregation in results.methods()
            if (line := _curve(results, method, aggregation, levels)).x
        ]
        for levels in results.pooled
    }
    shown = [high for series in lines.values() for line in series for high in (*line.high, *line.y)]
    top = min(102.0, 5 * (max(shown, default=100) // 5 + 1))
    least = min(
        (low for series in lines.values() for line in series for low in (*line.low, *line.y)), default=0
    )
    bottom = 10 * ((least - 5) // 10) if least > _READABLE else 0
    return [
        accuracy_panel(f"{short_name(benchmark)} · {group_title(results, k)}", series, bottom, top)
        for k, series in lines.items()
        if series
    ]


def _curve(results: Results, method: str, aggregation: str, levels: str) -> Series:
    rows = results.over_n(results.rerank_policy, method, aggregation, levels)
    bound = method == "pass"
    return Series(
        method_name(method, aggregation),
        COLORS[method],
        [row["n"] for row in rows],
        [100 * row["accuracy"] for row in rows],
        () if bound else [100 * row["ci_low"] for row in rows],
        () if bound else [100 * row["ci_high"] for row in rows],
        MARKERS[method],
        ":" if bound else "-",
    )


def accuracy_bars(results: Results, benchmark: str) -> list[tuple[str, list[Legend]]]:
    """Accuracy by level: reranking methods at the largest N, and the policies' greedy answers."""
    reranking = [
        (
            method_name(method, aggregation),
            COLORS[method],
            results.rerank_policy,
            method,
            aggregation,
            results.n,
        )
        for method, aggregation in results.methods()
        if method != "pass"
    ]
    greedy = [
        (POLICY_NAMES.get(policy, policy), COLORS.get(policy, "#cc79a7"), policy, "greedy", "", 1)
        for policy in results.policies
    ]
    charts = [
        (f"{short_name(benchmark)} · reranking, N = {results.n}", reranking),
        (f"{short_name(benchmark)} · policies, greedy", greedy),
    ]
    return [
        (
            level_bars(title, [f"level {i}" for i in LEVELS], series),
            [Legend(s.color, s.label) for s in series],
        )
        for title, names in charts
        if (series := [s for name in names if (s := _bar_series(results, *name)).x])
    ]


def _bar_series(
    results: Results, label: str, color: str, policy: str, method: str, aggregation: str, n: int
) -> Series:
    found = [(i, results.get(policy, method, aggregation, n, level)) for i, level in enumerate(LEVELS)]
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
    return f"{group.capitalize()} {'levels' if results.levels else 'problems'}"
