"""Rows of the tables of one benchmark: policies, reranking, aggregations, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from e2h_pipeline.report.cells import Cell, Row, TableRow, difference_cell
from e2h_pipeline.report.names import headed, method_name, policy_name
from e2h_pipeline.report.results import Measured, Results
from e2h_pipeline.reranking.aggregate import PREFERRED
from e2h_pipeline.statistics.levels import POOLED_GROUPS
from e2h_pipeline.statistics.multiple import CLEAR, holm, p_value_of_interval

Comparison = tuple[str, str, int]
"""First, second and N of a paired difference, as `differences.parquet` names them."""


def judged(differences: Sequence[Row], confidence: float) -> list[Row]:
    """The differences that a page shows: each comparison at its largest N, by pooled level group.

    `clear` says whether one is apart from 0 among all of them (statistics/multiple.py).

    Args:
        differences: rows of all benchmarks of the page.
        confidence: coverage of their intervals.
    """
    largest: dict[tuple[str, str, str], int] = {}
    for row in differences:
        largest[_pair(row)] = max(largest.get(_pair(row), 0), row["n"])
    shown = [row for row in differences if row["n"] == largest[_pair(row)] and row["levels"] in POOLED_GROUPS]
    p_values = holm(
        [p_value_of_interval(row["difference"], row["ci_low"], row["ci_high"], confidence) for row in shown]
    )
    return [{**row, "clear": p < CLEAR} for row, p in zip(shown, p_values, strict=True)]


def clearly_apart(differences: Sequence[Row]) -> set[tuple[Comparison, str]]:
    """Comparisons and level groups that were judged to be apart from 0."""
    return {(_comparison(row), row["levels"]) for row in differences if row["clear"]}


def policy_rows(results: Results, clear: set[tuple[Comparison, str]]) -> list[TableRow]:
    """Every policy greedy, then voted at the N that all of them have.

    Each is compared with the policy before it. There are no rows where no policy answered greedily.
    """
    if not any(row["method"] == "greedy" for row in results.rows):
        return []
    n = results.common_n()
    before = dict(zip(results.policies[1:], results.policies, strict=False))
    rows = []
    for policy in results.policies:
        for method, count, name, note in (
            ("greedy", 1, policy_name(policy), "greedy"),
            ("majority", n, "", f"majority of {n}"),
        ):
            measured = Measured(policy, method, n=count)
            if (method == "greedy" or count > 1) and results.get(measured, "all"):
                compared = (f"{policy} {method}", f"{before.get(policy)} {method}", count)
                rows.append(TableRow(name, note, _marked(results, measured, clear, compared)))
    return rows


def rerank_rows(results: Results, clear: set[tuple[Comparison, str]]) -> list[TableRow]:
    """One sample, then every headline method at the largest N, compared with the majority vote."""
    one = results.cells(Measured(results.rerank_policy, "pass"))
    rows = [TableRow("One sample", "mean", one)] if any(one) and results.n else []
    for method, aggregation in results.methods():
        compared = (f"{method} {aggregation}", "majority", results.n)
        cells = _marked(results, results.reranked(method, aggregation), clear, compared)
        rows.append(TableRow(headed(method_name(method)), aggregation, cells, strong=method in PREFERRED))
    return rows


def _marked(
    results: Results, measured: Measured, clear: set[tuple[Comparison, str]], compared: Comparison
) -> tuple[Cell | None, ...]:
    """A row's cells; those are clear that differ from what the row is compared with."""
    return tuple(
        replace(cell, clear=(compared, levels) in clear) if cell else None
        for cell, levels in zip(results.cells(measured), results.pooled, strict=True)
    )


def aggregation_rows(results: Results) -> list[TableRow]:
    """Every aggregation at the largest N, by single level and pooled group.

    There are no rows where they would say no more than the table of reranking.
    """
    if not results.n or not (results.levels or any(map(results.aggregations, PREFERRED))):
        return []
    methods = [("majority", ""), *((m, a) for m in PREFERRED for a in results.aggregations(m))]
    groups = results.levels + results.pooled
    return [
        TableRow(headed(method_name(method)), name, results.cells(results.reranked(method, name), groups))
        for method, name in methods
    ]


def difference_rows(differences: Sequence[Row], groups: Sequence[str] = POOLED_GROUPS) -> list[TableRow]:
    """Each judged comparison, by pooled level group, in the order of the table."""
    found = {(_comparison(row), row["levels"]): row for row in differences}
    rows = []
    for first, second, n in dict.fromkeys(map(_comparison, differences)):
        own = [found.get(((first, second, n), levels)) for levels in groups]
        cells = tuple(difference_cell(row) if row else None for row in own)
        rows.append(TableRow(f"{first} − {second}", f"N = {n}" if n > 1 else "", cells))
    return rows


def _pair(row: Row) -> tuple[str, str, str]:
    return row["benchmark"], row["first"], row["second"]


def _comparison(row: Row) -> Comparison:
    return row["first"], row["second"], row["n"]
