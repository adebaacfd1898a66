"""A sample pool joined with its gold answers: one row per sample becomes arrays of problems x samples.

Nothing else compares the benchmark's answers with gold. Every benchmark problem must be there with
the same number of samples, because a missing one would silently raise or lower every mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.grading.verdicts import Gold, Grader, Verdict, decide
from e2h_pipeline.rewards.pool import WRITTEN
from e2h_pipeline.statistics.levels import level_array

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import AnswerOf

_SAMPLE_COLUMNS = ("problem_id", "sample", "completion", "finish_reason", "tokens")


class PoolError(ValueError):
    """Samples, scores and gold that do not belong together; the message names file and problem."""


@dataclass(frozen=True)
class PoolFiles:
    """Artifacts of benchmark samples that an evaluator scored.

    Attributes:
        samples: benchmark_samples.
        scores: rerank_scores.
        gold: gold_answers.
        kind: kind of the evaluator, the word of `reward.kind`.
        policy: who drew the samples.
    """

    samples: Path
    scores: Path
    gold: Path
    kind: str
    policy: str = "sft"

    @property
    def evaluator(self) -> str:
        """Name of the evaluator in tables."""
        return f"easy_{self.kind}"


@dataclass(frozen=True)
class GradedPool:
    """P problems with M samples each, in order of problem id and sample.

    Attributes:
        questions: P questions.
        gold: P answers.
        levels: (P,) `UNKNOWN_LEVEL` where a problem has none.
        completions: P x M texts, flat.
        finished: (P, M) False where the length limit cut the sample off.
        answers: P lists of M answers, None where there is none.
        correct: (P, M) whether the answer equals gold.
        tokens: (P, M) how many tokens were drawn; NaN where nobody counted.
        undecided: distinct (gold, answer) pairs the grader gave up on; they count as wrong.
        golds: P, what answers are checked against.
    """

    problem_ids: tuple[str, ...]
    questions: tuple[str, ...]
    gold: tuple[str, ...]
    levels: NDArray[np.int64]
    completions: Sequence[str]
    finished: NDArray[np.bool_]
    answers: Sequence[Sequence[str | None]]
    correct: NDArray[np.bool_]
    tokens: NDArray[np.float64]
    undecided: int
    golds: tuple[Gold, ...]

    @property
    def samples(self) -> int:
        """M."""
        return self.correct.shape[1]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(P, M) whether there is an answer."""
        return np.array([[answer is not None for answer in row] for row in self.answers])

    def summary(self) -> dict[str, int]:
        """Counts for people and manifests."""
        return {
            "problems": len(self.problem_ids),
            "samples": self.samples,
            "unfinished": int((~self.finished).sum()),
            "no_answer": int((~self.answered).sum()),
            "undecided": self.undecided,
        }


def load_graded(samples: Path, gold: Path, judge: Grader, answer_of: AnswerOf) -> GradedPool:
    """Read, join and grade a pool.

    Args:
        samples: folder of `part-*.parquet` (or a Parquet file) of samples.
        gold: the gold_answers artifact.
        judge: decides whether an answer equals gold.
        answer_of: the domain's, finds the answer of a completion.

    Raises:
        PoolError: problems or samples missing, or there twice.
    """
    return grade_samples(samples, benchmark_gold(gold), judge, answer_of)


def grade_samples(
    samples: Path, problems: Mapping[str, Sequence[Any]], judge: Grader, answer_of: AnswerOf
) -> GradedPool:
    """`load_graded` with the problems at hand, column by column as of `benchmark_gold`."""
    rows = read_table(samples, _SAMPLE_COLUMNS).sort_by(
        [("problem_id", "ascending"), ("sample", "ascending")]
    )
    per_problem = _check_complete(rows, problems["problem_id"], samples)
    completions = rows["completion"].to_pylist()
    finished = [reason == "stop" for reason in rows["finish_reason"].to_pylist()]
    flat = [answer_of(text, done) for text, done in zip(completions, finished, strict=True)]
    answers = [flat[i : i + per_problem] for i in range(0, len(flat), per_problem)]
    correct, undecided = grade_pool(answers, problems["gold"], judge)
    return GradedPool(
        tuple(problems["problem_id"]),
        tuple(problems["question"]),
        tuple(problems["answer"]),
        level_array(problems["level"]),
        completions,
        np.array(finished).reshape(-1, per_problem),
        answers,
        correct,
        rows["tokens"].to_numpy().astype(np.float64).reshape(-1, per_problem),
        undecided,
        tuple(problems["gold"]),
    )


def grade_pool(
    answers: Sequence[Sequence[str | None]], gold: Sequence[Gold], judge: Grader
) -> tuple[NDArray[np.bool_], int]:
    """Correctness of P x M answers, and how many distinct (gold, answer) pairs stayed undecided."""
    pairs = [None if a is None else (g, a) for g, row in zip(gold, answers, strict=True) for a in row]
    found, undecided = decide(judge, pairs)
    said = iter(found)
    correct = [[next(said) is Verdict.EQUAL for _ in row] for row in answers]
    return np.array(correct, dtype=bool), undecided


def vote_classes(
    answers: Sequence[Sequence[str | None]], judge: Grader, questions: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Class within its problem of each of P x M answers, -1 where there is no answer.

    Made of answers and questions alone: gold has no say in which answers vote together.
    """
    grouped = judge.classes(answers, questions)
    return np.array([[-1 if c is None else c for c in row] for row in grouped], dtype=np.int64)


def benchmark_gold(gold: Path) -> dict[str, list[Any]]:
    """The benchmark's gold rows in order of problem id, column by column; `gold` is what answers are checked against."""
    import pyarrow.compute as pc

    file = gold / "data.parquet"
    table = read_table(file)
    table = table.filter(pc.equal(table["part"], "benchmark")).sort_by("problem_id")
    if not table.num_rows:
        raise PoolError(f"{file}: no row with part = 'benchmark'")
    return {**table.to_pydict(), "gold": [Gold.of_row(row) for row in table.to_pylist()]}


def load_step_logits(scores: Path, pool: GradedPool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Step logits of a pool's samples, flat, with (P * M + 1) offsets; in the pool's order.

    Args:
        scores: the rerank_scores artifact's table folder.

    Raises:
        PoolError: the scores are not of exactly this pool's samples.
    """
    rows = read_table(scores, ("problem_id", "sample", "step_logits"))
    rows = rows.sort_by([("problem_id", "ascending"), ("sample", "ascending")])
    if _check_complete(rows, pool.problem_ids, scores) != pool.samples:
        raise PoolError(
            f"{scores}: not scores of these {pool.samples} samples per problem; score the pool again"
        )
    column = rows["step_logits"].combine_chunks()
    lengths = np.diff(column.offsets.to_numpy())
    return column.flatten().to_numpy().astype(np.float64), np.concatenate([[0], np.cumsum(lengths)])


def load_written(scores: Path, pool: GradedPool) -> NDArray[np.float64] | None:
    """(P, M) tokens that the evaluator wrote to judge each sample, in the pool's order; None where it
    only reads."""
    import pyarrow.parquet as pq

    if WRITTEN not in pq.read_schema(min(scores.glob("*.parquet"))).names:
        return None
    rows = read_table(scores, ("problem_id", "sample", WRITTEN))
    rows = rows.sort_by([("problem_id", "ascending"), ("sample", "ascending")])
    return rows[WRITTEN].to_numpy().astype(np.float64).reshape(pool.correct.shape)


def _check_complete(rows: pa.Table, problem_ids: Sequence[str], path: Path) -> int:
    """Rows sorted by problem and sample must be samples 0 .. M-1 of every problem; returns M."""
    found = np.array(rows["problem_id"].to_pylist(), dtype=object)
    names, counts = np.unique(found.astype(str), return_counts=True)
    wanted = set(problem_ids)
    missing, unknown = wanted - set(names.tolist()), set(names.tolist()) - wanted
    if missing or unknown:
        odd, what = (min(missing), "has no samples") if missing else (min(unknown), "is not in gold_answers")
        raise PoolError(
            f"{path}: benchmark problem {odd} {what}; make the pool and gold_answers from one split"
        )
    most = int(counts.max())
    samples = rows["sample"].to_numpy()
    if (counts != most).any() or (samples != np.tile(np.arange(most), len(names))).any():
        odd = str(names[counts != most][0]) if (counts != most).any() else str(found[0])
        raise PoolError(f"{path}: samples of {odd} are not 0 to {most - 1}, once each; complete the pool")
    return most
