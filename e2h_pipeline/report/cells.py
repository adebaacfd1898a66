"""What tables of the page are made of: rows of cells, formatted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A row of a Parquet table, by column."""


@dataclass(frozen=True)
class Cell:
    """An estimate with its interval, ready to print.

    Attributes:
        clear: a difference is apart from 0 among all comparisons of the page (tables.py); of an
            accuracy, its difference from what its row is compared with.
        problems: how many problems it is a mean over, where that is known.
        numbers: the value and the bounds of its interval behind the text, or the value alone.
    """

    value: str
    interval: str
    clear: bool = False
    problems: int | None = None
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class TableRow:
    """A labelled row; `cells` are in the order of columns, None where there is no number."""

    label: str
    note: str
    cells: tuple[Cell | None, ...]
    strong: bool = False


def accuracy_cell(row: Row) -> Cell:
    """Accuracy and interval in percent.

    Args:
        row: `accuracy`, `ci_low` and `ci_high` in 0 to 1, and `problems`.
    """
    value, low, high = (100 * row[name] for name in ("accuracy", "ci_low", "ci_high"))
    return Cell(f"{value:.1f}", f"{low:.1f}–{high:.1f}", problems=row["problems"], numbers=(value, low, high))


def difference_cell(row: Row) -> Cell:
    """A difference and its interval in points.

    Args:
        row: `difference`, `ci_low` and `ci_high` in -1 to 1, `problems`, and `clear` if it was judged.
    """
    value, low, high = (100 * row[name] for name in ("difference", "ci_low", "ci_high"))
    interval = f"{signed(low)} to {signed(high)}"
    return Cell(signed(value), interval, row.get("clear", False), row["problems"], (value, low, high))


def signed(points: float) -> str:
    """One digit after the point, with its sign; a minus, not a hyphen."""
    rounded = round(points, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"
