"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from e2h_pipeline.report.cells import Cell, Row, TableRow, difference_cell
from e2h_pipeline.report.names import (
    METHOD_NAMES,
    POLICY_NAMES,
    POOLED,
    headed,
)
from e2h_pipeline.report.results import Results
from e2h_pipeline.reranking.aggregate import PREFERRED


def clearly_apart(differences: Sequence[Row]) -> set[tuple[str, str, int, str]]:
    """Comparisons whose interval leaves out 0: (first, second, n, levels)."""
    return {
        (row["first"], row["second"], row["n"], row["levels"])
        for row in differences
        if difference_cell(row).clear
    }


def _marked(
    results: Results,
    cells: Sequence[Cell | None],
    clear: set[tuple[str, str, int, str]],
    first: str,
    second: str,
    n: int,
) -> tuple[Cell | None, ...]:
    """A row's cells, those clear that differ from the same cell of what the row is compared with."""
    return tuple(
        replace(cell, clear=(first, second, n, levels) in clear) if cell else None
        for cell, levels in zip(cells, results.pooled, strict=True)
    )


def policy_rows(results: Results, clear: set[tuple[str, str, int, str]]) -> list[TableRow]:
    """Every policy greedy, then voted at the N all of them have, next to the policy before it; none without greedy
    answers."""
    if not any(row["method"] == "greedy" for row in results.rows):
        return []
    n = results.common_n()
    before = dict(zip(results.policies[1:], results.policies, strict=False))
    return [
        TableRow(
            name,
            note,
            _marked(
                results,
                results.cells(policy, method, "", count),
                clear,
                f"{policy} {method}",
                f"{before.get(policy)} {method}",
                count,
            ),
        )
        for policy in results.policies
        for method, count, name, note in (
            ("greedy", 1, POLICY_NAMES.get(policy, policy), "greedy"),
            ("majority", n, "", f"majority of {n}"),
        )
        if (method == "greedy" or count > 1) and results.get(policy, method, "", count, "all")
    ]


def rerank_rows(results: Results, clear: set[tuple[str, str, int, str]]) -> list[TableRow]:
    one = results.cells(results.rerank_policy, "pass", "", 1)
    mean = [TableRow("One sample", "mean", one)] if any(one) and results.n else []
    return mean + [
        TableRow(
            headed(METHOD_NAMES[method]),
            aggregation,
            _marked(
                results,
                results.cells(results.rerank_policy, method, aggregation, results.n),
                clear,
                f"{method} {aggregation}",
                "majority",
                results.n,
            ),
            strong=method in PREFERRED,
        )
        for method, aggregation in results.methods()
    ]


def aggregation_rows(results: Results) -> list[TableRow]:
    if not results.n or not (results.levels or any(map(results.aggregations, PREFERRED))):
        return []
    return [
        TableRow(
            headed(METHOD_NAMES[method]),
            name,
            results.cells(results.rerank_policy, method, name, results.n, results.levels + results.pooled),
        )
        for method, name in [("majority", ""), *((m, a) for m in PREFERRED for a in results.aggregations(m))]
    ]


def difference_rows(differences: Sequence[Row], groups: Sequence[str] = POOLED) -> list[TableRow]:
    """Each comparison at its largest N, by pooled level group, in the order of the table."""
    largest: dict[tuple[str, str], int] = {}
    for row in differences:
        pair = (row["first"], row["second"])
        largest[pair] = max(largest.get(pair, 0), row["n"])
    found = {(r["first"], r["second"], r["n"], r["levels"]): r for r in differences}
    return [
        TableRow(
            f"{first} − {second}",
            f"N = {n}" if n > 1 else "",
            tuple(
                difference_cell(found[first, second, n, levels])
                if (first, second, n, levels) in found
                else None
                for levels in groups
            ),
        )
        for (first, second), n in largest.items()
    ]
