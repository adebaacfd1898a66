"""Accuracy against the cost of an answer: tokens drawn, and tokens that the evaluator reads and writes.

A token drawn and a token read cost one forward pass of a model each. Where policy and evaluator have
one size, as in the paper and on the ladder, their sum measures compute. Drawing takes longer on most
machines, because reading goes in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from e2h_pipeline.report.cells import Row
from e2h_pipeline.report.colors import color_of
from e2h_pipeline.report.names import method_name, policy_name
from e2h_pipeline.report.plots import PlotDrawing, Series, cost_panel
from e2h_pipeline.report.results import Measured, Results


def cost_panels(metrics: Sequence[Row], lengths: Sequence[Row]) -> list[PlotDrawing]:
    """A panel for each pooled level group.

    Args:
        metrics: rows of one benchmark, as in `metrics.parquet`.
        lengths: rows of `lengths.parquet`.
    """
    results = Results(metrics)
    tokens = {(row["policy"], row["decoding"], row["levels"]): row["tokens"] for row in lengths}
    panels = []
    for levels in results.pooled:
        series = cost_lines(results, tokens, levels)
        title = f"{metrics[0]['benchmark']} · {'all problems' if levels == 'all' else f'{levels} levels'}"
        panels.append(cost_panel(title, series))
    return panels


def cost_lines(results: Results, tokens: Mapping[tuple[str, str, str], float], levels: str) -> list[Series]:
    """Accuracy over tokens per problem: a line for each method, a point for greedy answers of each policy.

    Args:
        tokens: (policy, greedy or sampled, level group) -> mean tokens of a sample; under `judged` those
            that the evaluator writes to judge one. Methods without an entry are left out.
    """
    lines = []
    for method, aggregation in results.methods():
        if method != "pass":
            rows = results.over_n(results.rerank_policy, method, aggregation, levels)
            cost = tokens.get((results.rerank_policy, "sampled", levels))
            if aggregation and cost is not None:  # the policy draws; the evaluator reads, and may write
                cost = 2 * cost + tokens.get((results.rerank_policy, "judged", levels), 0.0)
            lines.append(_line(method, method_name(method, aggregation), rows, cost))
    for policy in results.policies:
        row = results.get(Measured(policy, "greedy"), levels)
        greedy = tokens.get((policy, "greedy", levels))
        lines.append(_line(policy, f"{policy_name(policy)}, greedy", [row] if row else [], greedy))
    return [line for line in lines if line.x]


def _line(word: str, label: str, rows: Sequence[Row], tokens: float | None) -> Series:
    known = rows if tokens is not None else []
    return Series(
        label,
        color_of(word),
        [row["n"] * (tokens or 0.0) for row in known],
        [100 * row["accuracy"] for row in known],
        [100 * row["ci_low"] for row in known],
        [100 * row["ci_high"] for row in known],
        marker="D" if len(rows) == 1 else "o",
    )
