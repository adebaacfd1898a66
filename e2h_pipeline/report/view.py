"""What the page says about one benchmark: which numbers, in which order, under which names.

A section never mixes benchmarks: `benchmark_sections` makes one for each, and every table title
carries its name. Aggregations shown first are the paper's choice (product for the weighted vote,
minimum for best-of-N), fixed before any result, not the best on these problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from e2h_pipeline.report.cells import Cell, Row, TableRow, difference_cell
from e2h_pipeline.report.colors import color_of
from e2h_pipeline.report.figures import accuracy_bars, group_title, rerank_curves
from e2h_pipeline.report.levels import NUMBERED, LevelNames
from e2h_pipeline.report.names import AS_GIVEN, method_name
from e2h_pipeline.report.plots import Legend, PlotDrawing
from e2h_pipeline.report.published import COLOR as PUBLISHED_COLOR
from e2h_pipeline.report.published import LABEL as PUBLISHED
from e2h_pipeline.report.published import published_curves
from e2h_pipeline.report.results import Results
from e2h_pipeline.report.tables import (
    aggregation_rows,
    clearly_apart,
    difference_rows,
    judged,
    policy_rows,
    rerank_rows,
)
from e2h_pipeline.reranking.aggregate import PREFERRED

_PAPER = {"weighted-vote": "product", "best-of-n": "min"}
_NOUNS = {"weighted-vote": "the weighted vote", "best-of-n": "best-of-N"}


@dataclass(frozen=True)
class BenchmarkSection:
    """Everything the page says about one benchmark.

    Attributes:
        problems: number of problems by level group.
        pooled: groups of several levels, the columns of most tables.
        columns: heads of the columns of `aggregations`: single levels, then `pooled`.
        tiles: the comparisons the experiment is about, and the problems they are on (`tiles_on`).
        n: samples of `rerank_policy` that were reranked; `rerank_note` says how they were scored.
        comparisons: number of differences that the whole page judges.
        curves: panels that share `curve_legend`.
    """

    name: str
    grader: str
    problems: dict[str, int]
    pooled: tuple[str, ...]
    columns: tuple[str, ...]
    tiles: list[tuple[str, Cell]]
    tiles_on: str
    policies: list[TableRow]
    reranking: list[TableRow]
    aggregations: list[TableRow]
    differences: list[TableRow]
    comparisons: int
    rerank_policy: str
    rerank_note: str
    n: int
    curves: list[PlotDrawing]
    curve_legend: list[Legend]
    bars: list[PlotDrawing]


def benchmark_sections(
    metrics: Sequence[Row],
    differences: Sequence[Row],
    names: LevelNames = NUMBERED,
    confidence: float = 0.95,
) -> list[BenchmarkSection]:
    """One section for each benchmark.

    Args:
        metrics: rows as in `metrics.parquet`.
        differences: rows as in `differences.parquet`.
        names: what people call the levels.
        confidence: coverage of the intervals.
    """
    shown = judged(differences, confidence)
    return [
        _section(
            benchmark,
            Results(row for row in metrics if row["benchmark"] == benchmark),
            [row for row in shown if row["benchmark"] == benchmark],
            names,
            len(shown),
        )
        for benchmark in sorted({row["benchmark"] for row in metrics})
    ]


def _section(
    benchmark: str, results: Results, differences: Sequence[Row], names: LevelNames, comparisons: int
) -> BenchmarkSection:
    clear = clearly_apart(differences)
    return BenchmarkSection(
        name=benchmark,
        grader=", ".join(sorted({row["grader"] for row in results.rows})),
        problems={row["levels"]: row["problems"] for row in results.rows},
        pooled=results.pooled,
        columns=names.columns(results.levels + results.pooled),
        tiles=_tiles(results, differences),
        tiles_on=group_title(results, _tile_group(results)),
        policies=policy_rows(results, clear),
        reranking=rerank_rows(results, clear),
        aggregations=aggregation_rows(results),
        differences=difference_rows(differences, results.pooled),
        comparisons=comparisons,
        rerank_policy=results.rerank_policy,
        rerank_note=_rerank_note(results),
        n=results.n,
        curves=rerank_curves(results, benchmark),
        curve_legend=_curve_legend(results, benchmark),
        bars=accuracy_bars(results, benchmark, names),
    )


def _curve_legend(results: Results, benchmark: str) -> list[Legend]:
    ours = [
        Legend(color_of(method), method_name(method, aggregation))
        for method, aggregation in results.methods()
    ]
    published = published_curves(benchmark, "all", results.n)
    return ours + ([Legend(PUBLISHED_COLOR, PUBLISHED)] if published else [])


def _tiles(results: Results, differences: Sequence[Row]) -> list[tuple[str, Cell]]:
    """The comparisons the experiment is about, on hard levels; on all where levels are unknown."""
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
    shown = {method: aggregation for method, aggregation in results.methods() if aggregation}
    if not shown:
        return ""
    if set(shown.values()) == {AS_GIVEN}:
        return "Scores are used as they were given: the highest for best-of-N, as weights for the vote."
    if shown.items() <= _PAPER.items():
        return (
            "Aggregations shown here are the paper's, fixed beforehand: product of step scores for the"
            " weighted vote, minimum for best-of-N."
        )
    used = ", ".join(f"{name} for {_NOUNS[method]}" for method, name in shown.items())
    return f"Aggregations of step scores shown here, fixed beforehand: {used}."
