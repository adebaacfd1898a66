"""Score a pool of finished solutions, part by part.

Raw logits are kept: aggregation comes later. Finished parts survive a kill.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.shards import complete_shards
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.rewards.evaluators import Evaluator, open_evaluator

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Scoring
    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import TextFormat

# Rows read and scored at a time; it bounds memory, however large the parts of a pool are.
_ROWS = 8192
WRITTEN = "written_tokens"
"""Column of scores: tokens that the evaluator wrote to judge the sample."""


def score_pool(
    evaluator: Path, samples: Path, questions: Path, options: Scoring, text: TextFormat, work: Work
) -> dict[str, Any]:
    """Score a sample pool part by part and link the parts into `work.out`; finished parts survive a
    kill.

    Args:
        evaluator: folder that `open_evaluator` reads.
        samples: folder of the pool's parts.
        questions: folder of their questions.
        text: how the domain writes solutions.
        work: its runner scores the parts.
    """
    import pyarrow.parquet as pq

    parts = sorted(samples.glob("part-*.parquet"))
    rows = {part.stem: pq.read_metadata(part).num_rows for part in parts}
    done = reused = 0

    def count(name: str, made: pa.Table | None) -> None:
        nonlocal done, reused
        done += rows[name]
        reused += rows[name] if made is None else 0
        work.reporter.progress(done, sum(rows.values()), "solutions scored", reused)

    work.reporter.progress(0, sum(rows.values()), "solutions scored")
    calls = [(part.stem, (evaluator, part, questions, options.batch_tokens, text)) for part in parts]
    try:
        complete_shards(work.folder, calls, score_part, work.runner, work.reporter, count)
    finally:
        _evaluator.cache_clear()
    work.out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        os.link(work.folder / part.name, work.out / part.name)
    found = {"solutions": done, "steps": sum(_steps(work.out / part.name) for part in parts)}
    written = [_written(work.out / part.name) for part in parts]
    return (
        found if None in written or not written else {**found, "tokens_written": sum(filter(None, written))}
    )


def score_part(evaluator: Path, part: Path, questions: Path, batch_tokens: int, text: TextFormat) -> pa.Table:
    """The scores of one part of a sample pool, as rows of problem_id, level, sample, step_logits; and
    `WRITTEN` where the evaluator writes."""
    rows = read_table(questions / "data.parquet", ["problem_id", "question"]).to_pylist()
    asked = {row["problem_id"]: row["question"] for row in rows}

    def scored(pool: pa.Table) -> pa.Table:
        import pyarrow as pa

        judge, solutions = _evaluator(evaluator), _solutions(pool, asked)
        logits = judge.logits(solutions, text, batch_tokens)
        rows = pool.select(["problem_id", "level", "sample"])
        rows = rows.append_column("step_logits", pa.array(logits, pa.list_(pa.float32())))
        written = judge.written(solutions)
        return rows if written is None else rows.append_column(WRITTEN, pa.array(written, pa.int32()))

    return _joined([scored(pool) for pool in _row_batches(part)])


@lru_cache(maxsize=1)
def _evaluator(folder: Path) -> Evaluator:
    """Loaded once for all parts that a process scores, one after the other."""
    return open_evaluator(folder)


def _row_batches(part: Path) -> Iterator[pa.Table]:
    """A part of a pool, `_ROWS` rows at a time; once without rows where it is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["problem_id", "level", "sample", "completion", "finish_reason"]
    with pq.ParquetFile(part) as file:
        if not file.metadata.num_rows:
            yield file.read(columns=columns).select(columns)
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            yield pa.Table.from_batches([batch]).select(columns)


def _solutions(pool: pa.Table, asked: Mapping[str, str]) -> list[Solution]:
    return [
        (asked[row["problem_id"]], row["completion"], row["finish_reason"] == "stop")
        for row in pool.to_pylist()
    ]


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks()


def _written(part: Path) -> int | None:
    """Tokens that the evaluator wrote to judge a part; None where it only reads."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if WRITTEN not in pq.read_schema(part).names:
        return None
    return pc.sum(read_table(part, [WRITTEN])[WRITTEN]).as_py() or 0


def _steps(part: Path) -> int:
    import pyarrow.compute as pc

    return pc.sum(pc.list_value_length(read_table(part, ["step_logits"])["step_logits"])).as_py() or 0
