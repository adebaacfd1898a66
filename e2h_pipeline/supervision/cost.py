"""What labels cost, and how far their sources agree: figures of every recipe's labels.

The unit of cost is one verdict on one step after its earlier steps: what a person, a checker or
rollouts were asked for. A source is asked once for the same step after the same steps of a problem,
however many solutions share them, and never after a solution's first error. A verdict that balance
or another source makes superfluous was paid for, and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from e2h_pipeline.solutions import TextFormat
from e2h_pipeline.statistics.agreement import agreement
from e2h_pipeline.supervision.once import step_keys
from e2h_pipeline.supervision.rows import UNLABELLED, WRONG, Rows

ASKED = "asked"
"""Of a row: for each segment, whether it was asked for; where absent, a segment with a label was."""


def labels_bought(rows: Rows, text: TextFormat) -> int:
    """The number of verdicts behind the labels of one source's rows."""
    return len({key for row in rows for key in _asked(row, text)})


def _asked(row: Mapping[str, Any], text: TextFormat) -> Iterator[bytes]:
    """Keys of the steps that were asked for, up to the first error."""
    asked = row.get(ASKED) or [label != UNLABELLED for label in row["labels"]]
    for key, wanted, label in zip(step_keys(row, text), asked, row["labels"], strict=True):
        if wanted:
            yield key
        if label == WRONG:
            return


def agreement_of_sources(sources: Mapping[str, Rows], text: TextFormat) -> dict[str, dict[str, Any]]:
    """Agreement of each two sources on the steps that both label: same problem, same steps before.

    A soft label counts as right from 0.5, as everywhere. Of several labels of one source for a step
    the first counts.

    Args:
        sources: each source's rows by its name, with all labels it gave.

    Returns figures of `statistics.agreement` by `FIRST and SECOND`.
    """
    labels = {name: _labels(rows, text) for name, rows in sources.items()}
    return {
        f"{first} and {second}": agreement(
            (label >= 0.5, labels[second][key] >= 0.5)
            for key, label in labels[first].items()
            if key in labels[second]
        )
        for first, second in combinations(labels, 2)
    }


def _labels(rows: Rows, text: TextFormat) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for row in rows:
        for key, label in zip(step_keys(row, text), row["labels"], strict=True):
            if label != UNLABELLED:
                found.setdefault(key, label)
    return found
