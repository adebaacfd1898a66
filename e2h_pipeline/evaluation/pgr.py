"""Performance gap recovered (Burns et al. 2023, arXiv 2312.09390): how much of the way from weak
supervision to full supervision a method goes.

A ratio of small differences says little alone, so it always travels with its three accuracies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GapRecovered:
    """(x - weak) / (ceiling - weak), and the accuracies it is made of."""

    weak: float
    accuracy: float
    ceiling: float

    @property
    def value(self) -> float | None:
        """The share of the gap; None where the ceiling is not above the weak accuracy: no gap."""
        if self.ceiling <= self.weak:
            return None
        return (self.accuracy - self.weak) / (self.ceiling - self.weak)


def gap_recovered_rows(
    rows: Iterable[Mapping[str, Any]], ceiling_rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """PGR of every metrics row that the full-supervision recipe has too.

    Weak is the greedy accuracy of the easy SFT policy in `rows`; the ceiling of a row is the row
    of the same policy, method, aggregation and N in `ceiling_rows`; both at the same benchmark
    and levels.

    Args:
        rows: metrics rows of the recipe in question.
        ceiling_rows: metrics rows of its ceiling recipe.
    """
    rows = list(rows)
    ceilings = {_identity(row): float(row["accuracy"]) for row in ceiling_rows}
    weak = {
        (row["benchmark"], row["levels"]): float(row["accuracy"])
        for row in rows
        if (row["policy"], row["method"]) == ("sft", "greedy")
    }
    found = []
    for row in rows:
        start, ceiling = weak.get((row["benchmark"], row["levels"])), ceilings.get(_identity(row))
        if start is not None and ceiling is not None:
            found.append(_gap_row(row, GapRecovered(start, float(row["accuracy"]), ceiling)))
    return found


def uses_supervision(row: Mapping[str, Any]) -> bool:
    """Whether a row's accuracy depends on supervision at all; the base model's and pass@N do not, so
    their share of the gap says nothing."""
    return bool(row["policy"] != "base" and row["method"] != "pass")


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[c] for c in ("benchmark", "policy", "method", "aggregation", "n", "levels"))


def _gap_row(row: Mapping[str, Any], gap: GapRecovered) -> dict[str, Any]:
    kept = {c: row[c] for c in ("benchmark", "policy", "method", "evaluator", "aggregation", "n", "levels")}
    return {**kept, "weak": gap.weak, "accuracy": gap.accuracy, "ceiling": gap.ceiling, "pgr": gap.value}
