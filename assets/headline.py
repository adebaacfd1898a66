"""The numbers that people compare experiments by, told to MLflow's parent run of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2h_pipeline.evaluation.pgr import gap_recovered_rows, uses_supervision
from e2h_pipeline.report.results import Measured, Results

Rows = Sequence[Mapping[str, Any]]


def headline(rows: Rows, ceiling: Rows = ()) -> dict[str, float]:
    """Accuracies of each policy's greedy answer and of the reranking methods at the largest N, by level
    group; and the performance gap recovered, where the rows of the ceiling recipe are there.

    Returns:
        such as `hard/rl greedy` and `hard/rl greedy PGR`: shares, not percent.
    """
    results = Results(rows)
    wanted = [Measured(policy, "greedy") for policy in results.policies]
    wanted += [results.reranked(*method) for method in results.methods()]
    gaps = {_place(row): row["pgr"] for row in gap_recovered_rows(rows, ceiling) if uses_supervision(row)}
    found: dict[str, float] = {}
    for measured in dict.fromkeys(wanted):
        for levels in results.pooled:
            row = results.get(measured, levels)
            if row is None:
                continue
            name = f"{levels}/{measured.policy} {measured.method}"
            found[name] = float(row["accuracy"])
            if (gap := gaps.get(_place(row))) is not None:
                found[f"{name} PGR"] = gap
    return found


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in ("policy", "method", "aggregation", "n", "levels"))
