"""`partial_auroc.parquet`: does a signal put right solutions first, by share of tokens seen and level?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.graded import GradedPool
from e2h_pipeline.rewards.token_values import TokenValues
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.ranking import ranking_quality

if TYPE_CHECKING:
    import pyarrow as pa

SEEN = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of a solution's tokens that have been seen."""


def auroc_rows(
    values: TokenValues,
    graded: GradedPool,
    groups: Mapping[str, NDArray[np.bool_]],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Rows of `partial_auroc.parquet`. Solutions without a token are left out."""
    problem = np.repeat(np.arange(len(graded.problem_ids)), graded.samples)
    right, there = graded.correct.reshape(-1), values.lengths > 0
    starts = np.append(0, np.cumsum(values.lengths)[:-1])
    for seen in SEEN:
        at = starts + np.maximum(np.ceil(seen * values.lengths).astype(np.int64), 1) - 1
        for signal, own in values.signals.items():
            for levels, mask in groups.items():
                kept = there & mask[problem]
                found = ranking_quality(own[at[kept]], right[kept], problem[kept], bootstrap)
                for pairs, told in (("all", found.overall), ("within", found.within)):
                    if told is not None:
                        yield {
                            "signal": signal,
                            "seen": seen,
                            "pairs": pairs,
                            "levels": levels,
                            "value": told[0],
                            "ci_low": told[1],
                            "ci_high": told[2],
                            "count": found.count,
                        }


def auroc_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per signal, share of tokens seen, kind of pairs and level group."""
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    names = [("signal", pa.string()), ("seen", pa.float64()), ("pairs", pa.string()), ("levels", pa.string())]
    return pa.Table.from_pylist(list(rows), pa.schema([*names, *numbers, ("count", pa.int64())]))
