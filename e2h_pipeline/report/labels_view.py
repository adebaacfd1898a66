"""Labels bought, by source, and how far sources agree on the steps that two of them label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2h_pipeline.report.cells import Cell, TableRow

KINDS = {"easy_step_labels": "steps", "easy_outcome_labels": "outcomes"}
"""What the labels of an asset are of."""


@dataclass(frozen=True)
class LabelsSection:
    """Rows of the two tables; `agreement` is empty where there is one source."""

    bought: list[TableRow]
    agreement: list[TableRow]


def labels_section(lineage: Sequence[Mapping[str, Any]]) -> LabelsSection | None:
    """The labels behind a page.

    Args:
        lineage: rows of `artifacts.lineage.as_rows`.

    Returns:
        None where no artifact says what its labels cost, as in homes of earlier versions.
    """
    found = [row for row in lineage if row.get("labels_bought")]
    bought = [
        TableRow(name, KINDS.get(str(row["asset"]), str(row["asset"])), (_count(count),))
        for row in found
        for name, count in row["labels_bought"].items()
    ]
    agreement = [
        TableRow(pair, "", (_count(told["steps"]), _share(told["equal"]), _number(told["kappa"])))
        for row in found
        for pair, told in row.get("agreement", {}).items()
    ]
    return LabelsSection(bought, agreement) if bought else None


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", "", numbers=(value,))


def _share(value: float | None) -> Cell | None:
    return None if value is None else Cell(f"{100 * value:.1f}%", "", numbers=(value,))


def _number(value: float | None) -> Cell | None:
    return None if value is None else Cell(f"{value:.2f}".replace("-", "−"), "", numbers=(value,))
