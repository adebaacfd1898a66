"""Metrics rows of one benchmark, found by policy, method and level group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from e2h_pipeline.report.cells import Cell, Row, accuracy_cell
from e2h_pipeline.report.levels import levels_in, pooled_in
from e2h_pipeline.report.names import policy_order
from e2h_pipeline.reranking.aggregate import PREFERRED, by_preference


class Measured(NamedTuple):
    """What an accuracy is of: a policy, how an answer was chosen, and out of how many samples."""

    policy: str
    method: str
    aggregation: str = ""
    n: int = 1


class Results:
    """Metrics rows of one benchmark.

    Attributes:
        pooled: groups of several levels that the rows tell of: easy, hard, all.
        levels: single levels that the rows tell of, easiest first.
        n: the largest number of samples that were reranked; 0 where none were.
        rerank_policy: the policy whose samples were reranked; empty where none were.
        policies: all policies, each after those it is made from.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._found = {(_measured(row), row["levels"]): row for row in self.rows}
        groups = {row["levels"] for row in self.rows}
        self.pooled, self.levels = pooled_in(groups), levels_in(groups)
        scored = [row for row in self.rows if row["method"] in PREFERRED]
        reranked = scored or [row for row in self.rows if row["method"] == "majority" and row["n"] > 1]
        self.n = max((row["n"] for row in reranked), default=0)
        self.rerank_policy = reranked[0]["policy"] if reranked else ""
        self.policies = sorted({r["policy"] for r in self.rows}, key=policy_order)

    def get(self, measured: Measured, levels: str) -> Row | None:
        """The row of a level group, or None."""
        return self._found.get((measured, levels))

    def reranked(self, method: str, aggregation: str) -> Measured:
        """A reranking method at the largest number of samples."""
        return Measured(self.rerank_policy, method, aggregation, self.n)

    def cells(self, measured: Measured, groups: Sequence[str] | None = None) -> tuple[Cell | None, ...]:
        """Accuracy by level group; of the pooled groups that are there where none are named."""
        rows = [self.get(measured, levels) for levels in groups or self.pooled]
        return tuple(accuracy_cell(row) if row else None for row in rows)

    def over_n(self, policy: str, method: str, aggregation: str, levels: str) -> list[Row]:
        """A method's rows at every N, smallest first."""
        wanted = (policy, method, aggregation, levels)
        rows = [r for r in self.rows if (r["policy"], r["method"], r["aggregation"], r["levels"]) == wanted]
        return sorted(rows, key=lambda row: row["n"])

    def aggregations(self, method: str) -> list[str]:
        """The aggregations that a method was run with, the paper's choice first."""
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


def _measured(row: Row) -> Measured:
    return Measured(row["policy"], row["method"], row["aggregation"], row["n"])
