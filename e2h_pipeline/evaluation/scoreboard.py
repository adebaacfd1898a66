"""Per-problem values of many methods on one benchmark, and the three tables made of them.

`metrics` are means with intervals by level group. `differences` are paired differences of two
methods on the same problems. `values` are the per-problem values: with them, seeds can be pooled
and any two methods compared later without grading again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_column, level_groups
from e2h_pipeline.statistics.seeds import seed_intervals

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, order=True)
class Method:
    """What made an answer. `method` is greedy, majority, weighted-vote, best-of-n or pass; evaluator and
    aggregation are empty where no evaluator took part; `n` is the number of samples used."""

    policy: str
    method: str
    n: int
    evaluator: str = ""
    aggregation: str = ""

    @property
    def name(self) -> str:
        """Method and aggregation for people, as `weighted-vote product`."""
        return f"{self.method} {self.aggregation}".strip()

    @property
    def policy_name(self) -> str:
        """Policy and method for people, as `rl greedy`."""
        return f"{self.policy} {self.name}"


@dataclass(frozen=True)
class Difference:
    """A comparison to report: `first` minus `second`, and their names in the table."""

    first: Method
    second: Method
    first_name: str
    second_name: str


@dataclass(frozen=True)
class Scoreboard:
    """One benchmark: P problems with levels, and each method's expected accuracy on every problem.

    Attributes:
        values: (P,) of one run, or (S, P) of the runs of S seeds.
        grader: version of the grader, without which no number is reported.
        levels: (P,) `UNKNOWN_LEVEL` where a problem has none.
    """

    benchmark: str
    grader: str
    problem_ids: tuple[str, ...]
    levels: NDArray[np.integer]
    values: Mapping[Method, NDArray[np.float64]]


def metrics_table(board: Scoreboard, easy_levels: Collection[int], bootstrap: Bootstrap) -> pa.Table:
    """Accuracy with interval per method and level group (columns: `metrics_schema`)."""
    import pyarrow as pa

    return pa.Table.from_pylist(metrics_rows(board, easy_levels, bootstrap), metrics_schema())


def metrics_rows(
    board: Scoreboard, easy_levels: Collection[int], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The rows of `metrics_table`, and in `by_seed` the accuracy of each seed."""
    methods = list(board.values)
    found = estimates(board, [board.values[m] for m in methods], easy_levels, bootstrap, (0, 1))
    return [
        # The p-value is of an accuracy of 0, and says nothing.
        {
            **_method_columns(board, method),
            "accuracy": row.pop("mean"),
            **{name: value for name, value in row.items() if name != "p_value"},
        }
        for method, rows in zip(methods, found, strict=True)
        for row in rows
    ]


def differences_table(
    board: Scoreboard, differences: Sequence[Difference], easy_levels: Collection[int], bootstrap: Bootstrap
) -> pa.Table:
    """Paired differences with interval per comparison and level group (columns: `differences_schema`)."""
    import pyarrow as pa

    if not differences:
        return differences_schema().empty_table()
    return pa.Table.from_pylist(
        differences_rows(board, differences, easy_levels, bootstrap), differences_schema()
    )


def differences_rows(
    board: Scoreboard, differences: Sequence[Difference], easy_levels: Collection[int], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The rows of `differences_table`, with the difference on each seed and the p-value of 0."""
    values = [board.values[d.first] - board.values[d.second] for d in differences]
    return [
        {
            "benchmark": board.benchmark,
            "first": difference.first_name,
            "second": difference.second_name,
            "n": difference.first.n,
            "difference": row.pop("mean"),
            **row,
        }
        for difference, rows in zip(
            differences, estimates(board, values, easy_levels, bootstrap, (-1, 1)), strict=True
        )
        for row in rows
    ]


def values_table(board: Scoreboard) -> pa.Table:
    """One row per problem and method (columns: `values_schema`)."""
    import pyarrow as pa

    ids, levels = pa.array(board.problem_ids), pa.array(level_column(board.levels), pa.int8())
    parts = [
        pa.Table.from_pylist([_method_columns(board, method)] * len(ids))
        .append_column("problem_id", ids)
        .append_column("level", levels)
        .append_column("value", pa.array(values))
        for method, values in board.values.items()
    ]
    schema = values_schema()
    return pa.concat_tables([part.select(schema.names).cast(schema) for part in parts])


def read_values(table: pa.Table) -> dict[Method, dict[str, float]]:
    """A values table back as method -> problem id -> value."""
    names = ("policy", "method", "n", "evaluator", "aggregation")
    named = zip(*(table[name].to_pylist() for name in names), strict=True)
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for name, problem, value in zip(
        named, table["problem_id"].to_pylist(), table["value"].to_pylist(), strict=True
    ):
        found.setdefault(name, {})[problem] = value
    return {Method(*name): values for name, values in found.items()}


def estimates(
    board: Scoreboard,
    columns: Sequence[NDArray[np.float64]],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
    span: tuple[float, float],
) -> list[list[dict[str, Any]]]:
    """For each column of values on the board's problems, (P,) or (S, P), its estimates by level group."""
    found: list[list[dict[str, Any]]] = [[] for _ in columns]
    if not columns:
        return found
    values = np.stack([np.atleast_2d(column) for column in columns], axis=2)
    for group, mask in level_groups(board.levels, easy_levels).items():
        intervals = seed_intervals(values[:, mask], bootstrap, span)
        for column, rows in enumerate(found):
            rows.append(
                {
                    "levels": group,
                    "mean": intervals.mean[column],
                    "ci_low": intervals.low[column],
                    "ci_high": intervals.high[column],
                    "problems": int(mask.sum()),
                    "by_seed": intervals.by_seed[:, column].tolist(),
                    "p_value": float(intervals.p_value[column]),
                }
            )
    return found


def _method_columns(board: Scoreboard, method: Method) -> dict[str, Any]:
    return {
        "benchmark": board.benchmark,
        "grader": board.grader,
        "policy": method.policy,
        "method": method.method,
        "evaluator": method.evaluator,
        "aggregation": method.aggregation,
        "n": method.n,
    }


def metrics_schema() -> pa.Schema:
    """Columns of `metrics.parquet`."""
    import pyarrow as pa

    return pa.schema([*_method_fields(), *_estimate_fields("accuracy")])


def differences_schema() -> pa.Schema:
    """Columns of `differences.parquet`."""
    import pyarrow as pa

    names = [pa.field(name, pa.string()) for name in ("benchmark", "first", "second")]
    return pa.schema([*names, pa.field("n", pa.int32()), *_estimate_fields("difference")])


def values_schema() -> pa.Schema:
    """Columns of `values.parquet`."""
    import pyarrow as pa

    problem = [
        pa.field("problem_id", pa.string()),
        pa.field("level", pa.int8()),
        pa.field("value", pa.float64()),
    ]
    return pa.schema([*_method_fields(), *problem])


def _method_fields() -> list[pa.Field]:
    import pyarrow as pa

    texts = ("benchmark", "grader", "policy", "method", "evaluator", "aggregation")
    return [*(pa.field(name, pa.string()) for name in texts), pa.field("n", pa.int32())]


def _estimate_fields(value: str) -> list[pa.Field]:
    import pyarrow as pa

    numbers = [pa.field(name, pa.float64()) for name in (value, "ci_low", "ci_high")]
    return [pa.field("levels", pa.string()), *numbers, pa.field("problems", pa.int32())]
