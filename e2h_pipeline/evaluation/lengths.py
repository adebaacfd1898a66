"""How long answers are. A method costs the tokens drawn and, where an evaluator chooses, the same tokens
read again, and those that it writes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.graded import GradedPool
from e2h_pipeline.statistics.levels import level_groups

if TYPE_CHECKING:
    import pyarrow as pa


JUDGED = "judged"
"""Instead of a decoding: the tokens that an evaluator writes to judge a sample."""


def lengths_table(
    policy: str,
    decoding: str,
    pool: GradedPool,
    easy_levels: Collection[int],
    written: NDArray[np.float64] | None = None,
) -> pa.Table:
    """Mean tokens of a sample by level group (columns: `lengths_schema`); no rows where nobody counted
    the tokens of a sample.

    Args:
        policy: who drew the pool.
        decoding: greedy or sampled.
        pool: P problems with M samples each; every problem counts alike.
        written: (P, M) tokens that an evaluator wrote to judge the samples; adds rows `JUDGED`.
    """
    import pyarrow as pa

    own = _rows(policy, decoding, pool.tokens.mean(axis=1), pool, easy_levels)
    judged = [] if written is None else _rows(policy, JUDGED, written.mean(axis=1), pool, easy_levels)
    return pa.Table.from_pylist([*own, *judged], lengths_schema())


def _rows(
    policy: str,
    decoding: str,
    per_problem: NDArray[np.float64],
    pool: GradedPool,
    easy_levels: Collection[int],
) -> list[dict[str, Any]]:
    return [
        {
            "policy": policy,
            "decoding": decoding,
            "levels": group,
            "tokens": float(per_problem[mask].mean()),
            "problems": int(mask.sum()),
        }
        for group, mask in level_groups(pool.levels, easy_levels).items()
        if np.isfinite(per_problem).all()
    ]


def lengths_schema() -> pa.Schema:
    """Columns of `lengths.parquet`."""
    import pyarrow as pa

    names = [pa.field(name, pa.string()) for name in ("policy", "decoding", "levels")]
    return pa.schema([*names, pa.field("tokens", pa.float64()), pa.field("problems", pa.int32())])
