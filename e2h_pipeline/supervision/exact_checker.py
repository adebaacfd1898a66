"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.supervision.rows import (
    Rows,
)

if TYPE_CHECKING:
    pass


def checked_labels(samples: Rows, easy: Mapping[str, dict[str, Any]]) -> Rows:
    """Samples with the labels of the ladder's exact checker, where there is anything to label."""
    from e2h_pipeline.problems.ladder.checker import step_labels

    labelled = [
        {
            **row,
            "labels": [float(x) for x in step_labels(easy[row["problem_id"]]["question"], row["completion"])],
        }
        for row in samples
    ]
    return [row for row in labelled if row["labels"]]
