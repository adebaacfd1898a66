"""A tiny graded world on disk: six ladder questions, four samples each, scores that fit the
truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import PoolFiles
from e2h_pipeline.evaluation.rerank import rerank_metrics
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Evaluation, Rerank

# question, answer; levels 1-5 and once more 5
QUESTIONS = [("3+5", "1"), ("1+1-2", "0"), ("2*3+1", "0"), ("5-4*2", "2"), ("6+5*3-1", "4"), ("5*1", "5")]
RIGHT = {
    "3+5": "3+5=1",
    "1+1-2": "1+1=2\n\n2-2=0",
    "2*3+1": "2*3=6\n\n6+1=0",
    "5-4*2": "5-4=1\n\n1*2=2",
    "6+5*3-1": "6+5=4\n\n4*3=5\n\n5-1=4",
    "5*1": "5*1=5",
}
LEVELS = [1, 2, 3, 4, 5, 5]


def completion(question: str, answer: str, right: bool) -> str:
    """A right solution, or one whose last step is wrong and whose answer is 9."""
    steps = RIGHT[question]
    return f"{steps}\n\n# Answer\n\n{answer}" if right else f"{steps[:-1]}9\n\n# Answer\n\n9"


def sample_rows(pattern: list[list[str]]) -> pa.Table:
    """Rows of a pool; `pattern[p][s]` is "right", "wrong" or "cut" (finish_reason length)."""
    rows = []
    for p, kinds in enumerate(pattern):
        question, answer = QUESTIONS[p]
        for s, kind in enumerate(kinds):
            text = completion(question, answer, kind == "right")
            rows.append(
                {
                    "problem_id": f"p{p}",
                    "level": LEVELS[p],
                    "sample": s,
                    "completion": text if kind != "cut" else text.split("\n\n")[0],
                    "finish_reason": "length" if kind == "cut" else "stop",
                    "tokens": 10 * (s + 1),
                }
            )
    return pa.Table.from_pylist(rows)


def score_rows(samples: pa.Table) -> pa.Table:
    """Logits 2 for every segment, but -2 for the last two of a wrong solution."""
    rows = []
    for row in samples.to_pylist():
        blocks = row["completion"].split("\n\n")
        segments = len(blocks) - 1 if "# Answer" in blocks else len(blocks)
        wrong = row["finish_reason"] == "stop" and row["completion"].endswith("9")
        logits = [2.0] * (segments - 2) + [-2.0, -2.0] if wrong else [2.0] * segments
        rows.append(
            {
                "problem_id": row["problem_id"],
                "level": row["level"],
                "sample": row["sample"],
                "step_logits": logits,
            }
        )
    return pa.Table.from_pylist(rows).cast(
        pa.schema(
            [
                ("problem_id", pa.string()),
                ("level", pa.int64()),
                ("sample", pa.int64()),
                ("step_logits", pa.list_(pa.float32())),
            ]
        )
    )


def write_gold(folder: Path) -> Path:
    rows = [
        {
            "problem_id": f"p{i}",
            "level": LEVELS[i],
            "subject": "arithmetic",
            "part": "benchmark",
            "question": q,
            "answer": a,
        }
        for i, (q, a) in enumerate(QUESTIONS)
    ]
    rows.append({**rows[0], "problem_id": "h0", "part": "hard"})
    write_table(folder / "data.parquet", pa.Table.from_pylist(rows))
    return folder


POOL = [
    ["right", "right", "right", "wrong"],
    ["right", "right", "wrong", "wrong"],
    ["right", "wrong", "wrong", "cut"],
    ["right", "wrong", "wrong", "wrong"],
    ["wrong", "wrong", "cut", "cut"],
    ["cut", "cut", "cut", "cut"],
]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Folder with artifacts gold, samples, scores, and answers of sft and rl (rl gets one more
    right)."""
    samples = sample_rows(POOL)
    write_gold(tmp_path / "gold")
    # Two shards, in an order that is not that of the problems.
    write_table(tmp_path / "samples" / "data" / "part-00000.parquet", samples.slice(8))
    write_table(tmp_path / "samples" / "data" / "part-00001.parquet", samples.slice(0, 8))
    write_table(tmp_path / "scores" / "data" / "part-00000.parquet", score_rows(samples))
    for policy, solved in (("sft", 2), ("rl", 3)):
        greedy = [["right" if p < solved else "wrong"] for p in range(6)]
        write_table(tmp_path / policy / "greedy" / "part-00000.parquet", sample_rows(greedy))
        sampled = [["right", "right"] if p < solved else ["wrong", "cut"] for p in range(6)]
        write_table(tmp_path / policy / "sampled" / "part-00000.parquet", sample_rows(sampled))
    return tmp_path


@pytest.fixture
def rerank(world: Path) -> Callable[..., dict[str, Any]]:
    """Runs the rerank stage on the world, by default into its folder `rerank`."""
    files = PoolFiles(world / "samples", world / "scores", world / "gold", "prm")

    def run_into(
        out: str = "rerank", easy_levels: tuple[int, ...] = (1, 2, 3), **options: Any
    ) -> dict[str, Any]:
        work = Work(world / out, world / "work", recipe_seed=0)
        evaluation = Evaluation(bootstrap=200, grader="exact", easy_levels=easy_levels)
        return rerank_metrics(files, LADDER, Rerank(draws=8, **options), evaluation, work)

    return run_into
