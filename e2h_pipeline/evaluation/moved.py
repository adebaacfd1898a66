"""By how much the numbers of two results differ: paired by problem, where both have the same problems.

The difference is second minus first. Its interval is the percentile bootstrap over the differences
of the problems (`statistics.bootstrap`). Whether two intervals overlap says little; the interval of
the difference answers the question.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from e2h_pipeline.statistics.bootstrap import Bootstrap, mean_intervals
from e2h_pipeline.statistics.levels import level_array, level_groups
from e2h_pipeline.statistics.multiple import holm, p_value_of_interval

if TYPE_CHECKING:
    import pyarrow as pa

METHOD = ("benchmark", "policy", "method", "aggregation", "n")
"""What makes two rows the same measurement, besides the levels. Not the evaluator: its kind may be what differs."""

MetricsRow = Mapping[str, Any]
_Name = tuple[Any, ...]


def moved_rows(
    first: Sequence[MetricsRow],
    second: Sequence[MetricsRow],
    values: tuple[pa.Table, pa.Table],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """One row for each measurement that both results have.

    Args:
        first, second: rows of two metrics tables; those to be shown.
        values: the two tables of per-problem values.
        easy_levels: levels that count as easy in both.

    Returns:
        {benchmark, policy, method, aggregation, n, levels, first, second, difference, ci_low,
        ci_high, problems, paired, holm}. Without the same problems and grader on both sides `paired`
        is False, and there is no interval. `holm` is the p-value of 0 among all paired rows.
    """
    theirs = {(*_name(row), row["levels"]): row for row in second}
    common = [row for row in first if (*_name(row), row["levels"]) in theirs]
    intervals = _intervals(list(dict.fromkeys(map(_name, common))), values, easy_levels, bootstrap)
    rows = []
    for row in common:
        other = theirs[*_name(row), row["levels"]]
        estimate = intervals.get((*_name(row), row["levels"]))
        rows.append(
            {
                **{column: row[column] for column in METHOD},
                "levels": row["levels"],
                "first": row["accuracy"],
                "second": other["accuracy"],
                "difference": other["accuracy"] - row["accuracy"],
                "ci_low": estimate[0] if estimate else None,
                "ci_high": estimate[1] if estimate else None,
                "problems": row["problems"],
                "paired": estimate is not None,
                "holm": None,
            }
        )
    return _with_holm(rows, bootstrap.confidence)


def _with_holm(rows: list[dict[str, Any]], confidence: float) -> list[dict[str, Any]]:
    paired = [row for row in rows if row["paired"]]
    bounds = [(row["difference"], row["ci_low"], row["ci_high"]) for row in paired]
    for row, p in zip(paired, holm([p_value_of_interval(*b, confidence) for b in bounds]), strict=True):
        row["holm"] = p
    return rows


def only_in(first: Sequence[MetricsRow], second: Sequence[MetricsRow]) -> list[str]:
    """Measurements of the first that the second does not have, as `sft weighted-vote product N=64`."""
    theirs = {_name(row) for row in second}
    missing = dict.fromkeys(_name(row) for row in first if _name(row) not in theirs)
    return [
        f"{policy} {method} {aggregation}".strip() + f" N={n}"
        for _, policy, method, aggregation, n in missing
    ]


def _intervals(
    names: Sequence[_Name],
    values: tuple[pa.Table, pa.Table],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> dict[_Name, tuple[float, float]]:
    """(*method, levels) -> bounds of the paired difference."""
    levels, ones = _by_problem(values[0], names)
    other_levels, others = _by_problem(values[1], names)
    paired: dict[tuple[_Name, ...], list[_Name]] = {}  # the same problems -> methods measured on them
    for name in names:
        one, other = ones.get(name, {}), others.get(name, {})
        same = one and one.keys() == other.keys() and all(levels[p] == other_levels[p] for p in one)
        if same:
            paired.setdefault(tuple(sorted(one)), []).append(name)
    found = {}
    for problems, methods in paired.items():
        table = np.array([[others[m][p] - ones[m][p] for m in methods] for p in problems])
        groups = level_groups(level_array(levels[p] for p in problems), easy_levels)
        for group, mask in groups.items():
            estimate = mean_intervals(table[mask], bootstrap)
            for column, method in enumerate(methods):
                found[*method, group] = (float(estimate.low[column]), float(estimate.high[column]))
    return found


def _by_problem(
    table: pa.Table, names: Sequence[_Name]
) -> tuple[dict[_Name, int | None], dict[_Name, dict[_Name, float]]]:
    """(benchmark, grader, problem) -> level, and method -> problem -> value."""
    wanted = set(names)
    levels: dict[_Name, int | None] = {}
    values: dict[_Name, dict[_Name, float]] = {}
    for row in table.to_pylist():
        name = _name(row)
        if name in wanted:
            problem = (row["benchmark"], row.get("grader", ""), row["problem_id"])
            levels[problem] = row["level"]
            values.setdefault(name, {})[problem] = row["value"]
    return levels, values


def _name(row: MetricsRow) -> _Name:
    return tuple(row[column] for column in METHOD)
