"""From metrics rows to what the page shows: which numbers, in which order, under which names.

A view never mixes benchmarks: `benchmark_sections` makes one section per benchmark and every table
title carries its name. Aggregations shown first are the paper's choice (product for the weighted
vote, minimum for best-of-N), fixed before any result, not the best on these problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from e2h_pipeline.report.cells import Cell, Legend, Row, TableRow, difference_cell
from e2h_pipeline.report.figures import accuracy_bars, group_title, rerank_curves
from e2h_pipeline.report.names import (
    COLORS,
    method_name,
)
from e2h_pipeline.report.published import LABEL as PUBLISHED
from e2h_pipeline.report.published import published_curves
from e2h_pipeline.report.results import Results
from e2h_pipeline.report.tables import (
    aggregation_rows,
    clearly_apart,
    difference_rows,
    policy_rows,
    rerank_rows,
)
from e2h_pipeline.reranking.aggregate import PREFERRED


@dataclass(frozen=True)
class BenchmarkSection:
    """Everything the page says about one benchmark."""

    name: str
    grader: str
    problems: dict[str, int]
    pooled: tuple[str, ...]
    levels: tuple[str, ...]
    tiles: list[tuple[str, Cell]]
    tiles_on: str
    policies: list[TableRow]
    reranking: list[TableRow]
    aggregations: list[TableRow]
    differences: list[TableRow]
    rerank_policy: str
    rerank_note: str
    n: int
    curves: list[str]
    curve_legend: list[Legend]
    bars: list[tuple[str, list[Legend]]]


def benchmark_sections(metrics: Sequence[Row], differences: Sequence[Row]) -> list[BenchmarkSection]:
    """One section per benchmark."""
    names = sorted({row["benchmark"] for row in metrics})
    return [
        _section(
            name,
            Results(row for row in metrics if row["benchmark"] == name),
            [row for row in differences if row["benchmark"] == name],
        )
        for name in names
    ]


def _section(name: str, results: Results, differences: Sequence[Row]) -> BenchmarkSection:
    clear = clearly_apart(differences)
    return BenchmarkSection(
        name=name,
        grader=", ".join(sorted({row["grader"] for row in results.rows})),
        problems={row["levels"]: row["problems"] for row in results.rows},
        pooled=results.pooled,
        levels=results.levels,
        tiles=_tiles(results, differences),
        tiles_on=group_title(results, _tile_group(results)),
        policies=policy_rows(results, clear),
        reranking=rerank_rows(results, clear),
        aggregations=aggregation_rows(results),
        differences=difference_rows(differences, results.pooled),
        rerank_policy=results.rerank_policy,
        rerank_note=_rerank_note(results),
        n=results.n,
        curves=rerank_curves(results, name),
        curve_legend=[
            Legend(COLORS[method], method_name(method, aggregation))
            for method, aggregation in results.methods()
        ]
        + ([Legend("#9fc8e2", PUBLISHED)] if published_curves(name, "all", results.n) else []),
        bars=accuracy_bars(results, name),
    )


def _tiles(results: Results, differences: Sequence[Row]) -> list[tuple[str, Cell]]:
    """The comparisons the experiment is about, on hard levels (on all problems where levels are unknown)."""
    wanted = []
    for method in PREFERRED:
        for aggregation in results.aggregations(method)[:1]:
            label = f"{method_name(method, aggregation)} over majority, N = {results.n}"
            wanted.append((label, f"{method} {aggregation}", "majority", results.n))
    wanted.append(("RL over SFT, greedy", "rl greedy", "sft greedy", 1))
    group = _tile_group(results)
    found = {(r["first"], r["second"], r["n"]): r for r in differences if r["levels"] == group}
    return [
        (label, difference_cell(found[first, second, n]))
        for label, first, second, n in wanted
        if (first, second, n) in found
    ]


def _tile_group(results: Results) -> str:
    return "hard" if "hard" in results.pooled else "all"


def _rerank_note(results: Results) -> str:
    """How the shown scores were made of step scores."""
    shown = {aggregation for _, aggregation in results.methods() if aggregation}
    if not shown:
        return ""
    if shown <= {"product", "min"}:
        return (
            "Aggregations shown here are the paper's, fixed beforehand: product of step scores for the"
            " weighted vote, minimum for best-of-N."
        )
    return "Scores are used as they were given: the highest for best-of-N, as weights for the vote."
