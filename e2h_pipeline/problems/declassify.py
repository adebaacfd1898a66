"""The declassifier: the one place that reads the answers of hard and benchmark problems and writes
what the other stages may see.

`problem_source` keeps all problems with all answers (`pool.parquet`). Only the stages of the split
may read it (`assets/problems.py`), each through `write_part`:

    easy_problems         easy problems, with everything
    hard_questions        hard problems, question only (with answers where `problems.hard_answers`)
    benchmark_questions   benchmark problems, question only
    gold_answers          hard and benchmark problems, with answers: for audits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.problems.records import (
    Problem,
    ProblemPool,
    ProblemSplit,
    counts_by_level,
    easy_table,
    gold_table,
    pool_table,
    question_table,
    split_by_supervision,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Problems

POOL = "pool.parquet"

_TABLES: Mapping[str, Callable[[ProblemSplit, Problems], pa.Table]] = {
    "easy_problems": lambda split, _: easy_table(split),
    "hard_questions": lambda split, options: question_table(split.hard, with_answers=options.hard_answers),
    "benchmark_questions": lambda split, _: question_table(split.benchmark),
    "gold_answers": lambda split, _: gold_table(split),
}
_COUNTS: Mapping[str, tuple[str, ...]] = {
    "easy_problems": ("easy_train", "easy_validation"),
    "hard_questions": ("hard",),
    "benchmark_questions": ("benchmark",),
    "gold_answers": ("hard", "benchmark"),
}


def write_pool(folder: Path, pool: ProblemPool) -> None:
    """Write all problems with all answers to `folder/pool.parquet`."""
    write_table(folder / POOL, pool_table(pool))


def write_part(part: str, source: Path, options: Problems, out: Path) -> dict[str, Any]:
    """Write one part of the split to `out/data.parquet`.

    Args:
        part: name of the stage.
        source: folder of `problem_source`.
        options: levels, seed, limits and hold-out of the recipe.

    Returns:
        Counts by level.
    """
    split = split_by_supervision(_read_pool(source), options)
    write_table(out / TABLE, _TABLES[part](split, options))
    return {name: counts_by_level(getattr(split, name)) for name in _COUNTS[part]}


def _read_pool(folder: Path) -> ProblemPool:
    train: list[Problem] = []
    benchmark: list[Problem] = []
    for row in read_table(folder / POOL).to_pylist():
        part = benchmark if row.pop("part") == "benchmark" else train
        payload, steps = dict(row.pop("payload", None) or ()), tuple(row.pop("steps"))
        part.append(Problem(**row, steps=steps, payload=payload))
    return ProblemPool(train, benchmark)
