"""Runs of several seeds as one: means over seeds and problems, and what may be told of differences.

An arm is a recipe without its seeds; its runs differ in seeds alone. Differences, of two methods of
an arm or of one method in two arms, are paired by seed and problem. They are told from
`LEAST_SEEDS` seeds on, with Holm's p-values over all that one table tells. Everything pooled in this
project (results, pages of sweeps, benchmarks) goes through here and `statistics.seeds`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.comparisons import against_majority, at_largest_n, between_policies
from e2h_pipeline.evaluation.scoreboard import (
    Scoreboard,
    differences_rows,
    estimates,
    metrics_rows,
    read_values,
)
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import POOLED_GROUPS, level_array
from e2h_pipeline.statistics.multiple import holm
from e2h_pipeline.statistics.seeds import LEAST_SEEDS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Arm:
    """The runs of one recipe on several seeds.

    Attributes:
        seeds: names of the seeds.
        board: the values of each method, (seeds, problems).
    """

    name: str
    seeds: tuple[str, ...]
    board: Scoreboard


def pool_arm(name: str, values: Mapping[str, pa.Table]) -> Arm:
    """An arm from its `values.parquet` tables by seed. Only methods that every seed has are pooled.

    Raises:
        ValueError: more than one benchmark or grader, or seeds with different problems.
    """
    tables = list(values.values())
    benchmark, grader = (_one(tables, column) for column in ("benchmark", "grader"))
    runs = [read_values(table) for table in tables]
    levels = dict(zip(tables[0]["problem_id"].to_pylist(), tables[0]["level"].to_pylist(), strict=True))
    problems = sorted(levels)
    shared = [method for method in runs[0] if all(method in run for run in runs)]
    pooled = {method: _stacked([run[method] for run in runs], problems) for method in shared}
    board = Scoreboard(benchmark, grader, tuple(problems), level_array(levels[p] for p in problems), pooled)
    return Arm(name, tuple(values), board)


def pooled_rows(arm: Arm, easy_levels: Collection[int], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Metrics rows over all seeds; `by_seed` has the accuracy of each seed by its name."""
    rows = metrics_rows(arm.board, easy_levels, bootstrap)
    return [_named(row, arm.seeds) for row in rows]


def method_differences(arm: Arm, easy_levels: Collection[int], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Policies against those before them and evaluators against the vote, each at its largest N."""
    if len(arm.seeds) < LEAST_SEEDS:
        return []
    methods = at_largest_n(arm.board.values)
    pairs = [*between_policies(methods), *against_majority(methods)]
    rows = differences_rows(arm.board, pairs, easy_levels, bootstrap)
    return [
        {**_named(row, arm.seeds), "first": f"{row['first']}, {arm.name}"}
        for row in rows
        if row["levels"] in POOLED_GROUPS
    ]


def arm_differences(
    arm: Arm, baseline: Arm, easy_levels: Collection[int], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Each method of an arm minus the same of another, on the seeds and problems that both have."""
    paired = paired_board(arm, baseline)
    if paired is None or len(paired.seeds) < LEAST_SEEDS:
        return []
    methods = at_largest_n(paired.board.values)
    columns = [paired.board.values[method] for method in methods]
    return [
        {
            "benchmark": arm.board.benchmark,
            "first": f"{method.policy_name}, {arm.name}",
            "second": baseline.name,
            "n": method.n,
            "difference": row.pop("mean"),
            **_named(row, paired.seeds),
        }
        for method, rows in zip(
            methods, estimates(paired.board, columns, easy_levels, bootstrap, (-1, 1)), strict=True
        )
        for row in rows
        if row["levels"] in POOLED_GROUPS
    ]


def paired_board(arm: Arm, baseline: Arm) -> Arm | None:
    """Differences of two arms by seed and problem; None where they share no seed, problems or method."""
    one, other = arm.board, baseline.board
    if (one.benchmark, one.grader, one.problem_ids) != (other.benchmark, other.grader, other.problem_ids):
        return None
    if (one.levels != other.levels).any():
        return None
    seeds = [seed for seed in arm.seeds if seed in baseline.seeds]
    rows, other_rows = ([a.seeds.index(seed) for seed in seeds] for a in (arm, baseline))
    values = {
        # The evaluator may be what differs; it is not part of what makes two methods the same.
        replace(method, evaluator=""): one.values[method][rows] - other.values[theirs][other_rows]
        for method in one.values
        for theirs in other.values
        if replace(theirs, evaluator="") == replace(method, evaluator="")
    }
    if not seeds or not values:
        return None
    return Arm(f"{arm.name} - {baseline.name}", tuple(seeds), replace(one, values=values))


def with_holm(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of differences with `holm`, the p-value among all of them."""
    rows = list(rows)
    adjusted = holm([row["p_value"] for row in rows])
    return [{**row, "holm": p} for row, p in zip(rows, adjusted, strict=True)]


def untold(seeds: int) -> str:
    """Why a table with so many seeds tells no differences; empty where it does."""
    if seeds >= LEAST_SEEDS:
        return ""
    return f"{seeds} seed{'s' if seeds > 1 else ''}: differences between methods are not told below {LEAST_SEEDS} seeds"


def _named(row: Mapping[str, Any], seeds: Sequence[str]) -> dict[str, Any]:
    return {**row, "seeds": len(seeds), "by_seed": dict(zip(seeds, row["by_seed"], strict=True))}


def _stacked(runs: Sequence[Mapping[str, float]], problems: Sequence[str]) -> NDArray[np.float64]:
    """Values of runs on the same problems, (seeds, problems)."""
    for number, run in enumerate(runs, start=1):
        if odd := sorted(set(run) ^ set(problems)):
            raise ValueError(
                f"run {number} and run 1 differ in problems ({odd[0]}); pool seeds of one benchmark only"
            )
    return np.array([[run[problem] for problem in problems] for run in runs])


def _one(tables: Sequence[pa.Table], column: str) -> str:
    found = sorted({name for table in tables for name in table[column].unique().to_pylist()})
    if len(found) != 1:
        raise ValueError(f"seeds of one {column} can be pooled, these are {', '.join(found)}")
    return str(found[0])
