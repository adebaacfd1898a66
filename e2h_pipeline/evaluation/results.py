"""Metrics of one or many experiments as flat result rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from e2h_pipeline.statistics.levels import group_order

RESULT_COLUMNS = (
    "recipe",
    "benchmark",
    "policy",
    "method",
    "evaluator",
    "aggregation",
    "n",
    "levels",
    "accuracy",
    "ci_low",
    "ci_high",
    "problems",
    "grader",
    "data_versions",
)
SEARCH_COSTS = ("tokens", "flops")
"""Mean cost of an answer, in rows of searches."""


def result_rows(
    key: str, metrics: Iterable[Mapping[str, Any]], data_versions: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of one experiment's `metrics.parquet` with its recipe key and the data versions behind it.

    Args:
        key: the experiment's recipe key.
        metrics: rows of the metrics table (`table.to_pylist()`).
        data_versions: asset -> data version of what fed the numbers.
    """
    # Tables made before graders were named are still in people's stores.
    rows = [{"recipe": key, "grader": "", **row, "data_versions": dict(data_versions)} for row in metrics]
    return [{column: row[column] for column in RESULT_COLUMNS} for row in sorted(rows, key=_order)]


def marked_stopped(rows: Iterable[Mapping[str, Any]], why: str) -> list[dict[str, Any]]:
    """Rows of the trained policy with `stopped`, why a guard ended its training; all others as they
    are."""
    return [{**row, "stopped": why} if why and row["policy"] == "rl" else dict(row) for row in rows]


def select(
    rows: Iterable[Mapping[str, Any]],
    *,
    levels: Collection[str] = ("easy", "hard", "all"),
    largest_n: bool = True,
) -> list[dict[str, Any]]:
    """The rows most people want: pooled level groups, every method at its largest N."""
    kept = [dict(row) for row in rows if row["levels"] in levels]
    if not largest_n:
        return kept
    most: dict[tuple[Any, ...], int] = {}
    for row in kept:
        most[_series(row)] = max(most.get(_series(row), 0), row["n"])
    return [row for row in kept if row["n"] == most[_series(row)]]


def _series(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(
        row[c] for c in ("recipe", "benchmark", "policy", "method", "evaluator", "aggregation", "levels")
    )


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    policies = {"base": 0, "sft": 1, "rl": 2}
    methods = {"greedy": 0, "majority": 1, "weighted-vote": 2, "best-of-n": 3, "pass": 4}
    return (
        row["benchmark"],
        policies.get(row["policy"], len(policies)),
        row["policy"],
        methods.get(row["method"], len(methods)),
        row["aggregation"],
        row["n"],
        group_order(row["levels"]),
    )
