"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from e2h_pipeline.report.cells import Cell, Row, accuracy_cell
from e2h_pipeline.report.names import (
    LEVELS,
    POOLED,
    policy_order,
)
from e2h_pipeline.reranking.aggregate import PREFERRED, by_preference


class Results:
    """Metrics rows of one benchmark, found by name."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._found = {self._name(row): row for row in self.rows}
        there = {row["levels"] for row in self.rows}
        self.pooled = tuple(group for group in POOLED if group in there)
        self.levels = tuple(level for level in LEVELS if level in there)
        scored = [row for row in self.rows if row["method"] in PREFERRED]
        reranked = scored or [row for row in self.rows if row["method"] == "majority" and row["n"] > 1]
        self.n = max((row["n"] for row in reranked), default=0)
        self.rerank_policy = reranked[0]["policy"] if reranked else ""
        self.policies = sorted({r["policy"] for r in self.rows}, key=policy_order)

    @staticmethod
    def _name(row: Row) -> tuple[Any, ...]:
        return row["policy"], row["method"], row["aggregation"], row["n"], row["levels"]

    def get(self, policy: str, method: str, aggregation: str, n: int, levels: str) -> Row | None:
        """One row, or None."""
        return self._found.get((policy, method, aggregation, n, levels))

    def cells(
        self, policy: str, method: str, aggregation: str, n: int, groups: Sequence[str] | None = None
    ) -> tuple[Cell | None, ...]:
        """Accuracy by level group as cells; the pooled groups that are there where none are named."""
        rows = [self.get(policy, method, aggregation, n, levels) for levels in groups or self.pooled]
        return tuple(accuracy_cell(row) if row else None for row in rows)

    def over_n(self, policy: str, method: str, aggregation: str, levels: str) -> list[Row]:
        """A method's rows at every N, smallest first."""
        wanted = (policy, method, aggregation, levels)
        rows = [r for r in self.rows if (r["policy"], r["method"], r["aggregation"], r["levels"]) == wanted]
        return sorted(rows, key=lambda row: row["n"])

    def aggregations(self, method: str) -> list[str]:
        """The aggregations a method was run with, the paper's choice first."""
        there = {row["aggregation"] for row in self.rows if row["method"] == method}
        return by_preference(method, there)

    def common_n(self) -> int:
        """The largest N at which every policy has a majority vote; 0 where there is none."""
        counts = [
            {r["n"] for r in self.rows if r["policy"] == p and r["method"] == "majority"}
            for p in self.policies
        ]
        return max(set.intersection(*counts), default=0) if counts else 0

    def methods(self) -> list[tuple[str, str]]:
        """(method, aggregation) of the headline reranking rows."""
        chosen = [(m, self.aggregations(m)[0]) for m in PREFERRED if self.aggregations(m)]
        return [("majority", ""), *chosen, ("pass", "")] if self.n else []
