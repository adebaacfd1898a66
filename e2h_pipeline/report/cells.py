"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """An estimate with its interval, ready to print. `clear`: a difference whose interval leaves out 0, or an accuracy
    that differs so from what it is compared with."""

    value: str
    interval: str
    clear: bool = False
    problems: int | None = None


@dataclass(frozen=True)
class TableRow:
    """A labelled row; `cells` are in the order of the table's columns, None where there is no number."""

    label: str
    note: str
    cells: tuple[Cell | None, ...]
    strong: bool = False


@dataclass(frozen=True)
class Legend:
    """A colour and what it stands for."""

    color: str
    label: str


def accuracy_cell(row: Row) -> Cell:
    """Accuracy and interval in percent."""
    low, high = 100 * row["ci_low"], 100 * row["ci_high"]
    return Cell(f"{100 * row['accuracy']:.1f}", f"{low:.1f}–{high:.1f}", problems=row["problems"])


def difference_cell(row: Row) -> Cell:
    """A difference and its interval in points."""
    low, high = 100 * row["ci_low"], 100 * row["ci_high"]
    interval = f"{_signed(low)} to {_signed(high)}"
    return Cell(_signed(100 * row["difference"]), interval, low > 0 or high < 0, row["problems"])


def _signed(points: float) -> str:
    rounded = round(points, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"
