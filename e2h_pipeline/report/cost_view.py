"""Accuracy against what it costs to answer: tokens that are drawn, and those that the evaluator reads.

A token drawn and a token read are one forward pass of a model each. Where policy and evaluator are of one size, as in
the paper and on the ladder, their sum is compute; drawing takes longer on most machines, because reading goes in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2h_pipeline.report.cells import Legend
from e2h_pipeline.report.names import COLORS, POLICY_NAMES, method_name
from e2h_pipeline.report.plots import Series, cost_panel
from e2h_pipeline.report.results import Results

Row = Mapping[str, Any]


def cost_panels(metrics: Sequence[Row], lengths: Sequence[Row]) -> list[tuple[str, list[Legend]]]:
    """A panel per pooled level group: (svg, legend).

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
        panels.append((cost_panel(title, series), [Legend(line.color, line.label) for line in series]))
    return panels


def cost_lines(results: Results, tokens: Mapping[tuple[str, str, str], float], levels: str) -> list[Series]:
    """Accuracy over tokens per problem, a line a method over N and a point a policy's greedy answers.

    Args:
        tokens: (policy, greedy or sampled, level group) -> mean tokens of a sample; what is not there is left out.
    """
    lines = []
    for method, aggregation in results.methods():
        if method != "pass":
            rows = results.over_n(results.rerank_policy, method, aggregation, levels)
            models = 2 if aggregation else 1  # who draws, and who reads
            sampled = tokens.get((results.rerank_policy, "sampled", levels))
            lines.append(_line(method, method_name(method, aggregation), rows, sampled, models))
    for policy in results.policies:
        row = results.get(policy, "greedy", "", 1, levels)
        greedy = tokens.get((policy, "greedy", levels))
        name = f"{POLICY_NAMES.get(policy, policy)}, greedy"
        lines.append(_line(policy, name, [row] if row else [], greedy, 1))
    return [line for line in lines if line.x]


def _line(color: str, label: str, rows: Sequence[Row], tokens: float | None, models: int) -> Series:
    known = rows if tokens is not None else []
    return Series(
        label,
        COLORS.get(color, "#cc79a7"),
        [models * row["n"] * (tokens or 0.0) for row in known],
        [100 * row["accuracy"] for row in known],
        [100 * row["ci_low"] for row in known],
        [100 * row["ci_high"] for row in known],
        marker="D" if len(rows) == 1 else "o",
    )
