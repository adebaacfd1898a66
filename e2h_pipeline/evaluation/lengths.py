"""How long answers are. A method costs the tokens drawn and, where an evaluator chooses, the same tokens read again."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from e2h_pipeline.evaluation.graded import GradedPool
from e2h_pipeline.statistics.levels import level_groups

if TYPE_CHECKING:
    import pyarrow as pa


def lengths_table(policy: str, decoding: str, pool: GradedPool, easy_levels: Collection[int]) -> pa.Table:
    """Mean tokens of a sample by level group (columns: `lengths_schema`); no rows where nobody counted
    the tokens of a sample.

    Args:
        policy: who drew the pool.
        decoding: greedy or sampled.
        pool: P problems with M samples each; every problem counts alike.
    """
    import pyarrow as pa

    per_problem = pool.tokens.mean(axis=1)
    rows = [
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
    return pa.Table.from_pylist(rows, lengths_schema())


def lengths_schema() -> pa.Schema:
    """Columns of `lengths.parquet`."""
    import pyarrow as pa

    names = [pa.field(name, pa.string()) for name in ("policy", "decoding", "levels")]
    return pa.schema([*names, pa.field("tokens", pa.float64()), pa.field("problems", pa.int32())])
