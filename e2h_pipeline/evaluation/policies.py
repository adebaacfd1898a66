"""The benchmark_metrics stage: greedy and voted accuracy of every policy, next to the reranked ones.

The table is the full result of a recipe: it holds the rerank rows too, so nobody has to join. One
number has one estimate. Where the rerank pool measured the same thing (a policy's majority vote or
pass@N at the same N, over more samples), the table has its per-problem values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.comparisons import between_policies
from e2h_pipeline.evaluation.graded import GradedPool, PoolError, load_graded, vote_classes
from e2h_pipeline.evaluation.lengths import lengths_table
from e2h_pipeline.evaluation.scoreboard import (
    Method,
    Scoreboard,
    differences_table,
    metrics_table,
    read_values,
    values_table,
)
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.verdicts import Grader
from e2h_pipeline.reranking.curves import RerankPool, selection_curves, vote_curves
from e2h_pipeline.reranking.draws import sample_counts
from e2h_pipeline.statistics.bootstrap import Bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import AnswerOf, Domain
    from e2h_pipeline.recipe import Evaluation


def benchmark_metrics(
    answers: Mapping[str, Path],
    rerank_metrics: Path,
    gold: Path,
    domain: Domain,
    evaluation: Evaluation,
    work: Work,
) -> dict[str, Any]:
    """Grade the policies' answers and write metrics, paired differences and per-problem values.

    The files are `metrics.parquet`, `differences.parquet`, `values.parquet` and `lengths.parquet`.

    Differences are taken between every later and earlier policy of base, sft, rl: greedy, and
    majority over all samples.

    Args:
        answers: policy name -> its answers artifact (`greedy/` and `sampled/` tables).
        rerank_metrics: rerank_metrics artifact of the same benchmark.
        gold: gold_answers artifact.
        domain: finds answers, and names the benchmark.

    Returns:
        Counts and the headline: greedy accuracy and policy differences on hard levels.

    Raises:
        PoolError: answers, gold or reranked values that do not belong together.
    """
    with sharded_grader(evaluation.grader, work.folder, work.runner, work.reporter) as judge:
        pools = {name: _Answers.load(path, gold, judge, domain.answer_of) for name, path in answers.items()}
    work.reporter.message(f"graded the answers of {', '.join(pools)}")
    board = _scoreboard(domain.benchmark, judge.version, pools, rerank_metrics)
    easy_levels = evaluation.easy_levels
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    metrics = metrics_table(board, easy_levels, bootstrap)
    differences = _with_rerank_rows(
        differences_table(board, between_policies(board.values), easy_levels, bootstrap),
        rerank_metrics,
    )
    write_table(work.out / "metrics.parquet", metrics)
    write_table(work.out / "differences.parquet", differences)
    write_table(work.out / "values.parquet", values_table(board))
    write_table(work.out / "lengths.parquet", _lengths(pools, rerank_metrics, easy_levels))
    counts = {name: pool.greedy.summary() | {"samples": pool.sampled.samples} for name, pool in pools.items()}
    return {
        "benchmark": domain.benchmark,
        "grader": judge.version,
        "policies": counts,
        **_headline(metrics, differences),
    }


class _Answers:
    """A policy's graded greedy and sampled answers."""

    def __init__(self, greedy: GradedPool, sampled: GradedPool, classes: NDArray[np.int64]) -> None:
        self.greedy, self.sampled, self.classes = greedy, sampled, classes

    @classmethod
    def load(cls, path: Path, gold: Path, judge: Grader, answer_of: AnswerOf) -> _Answers:
        greedy, sampled = (load_graded(path / part, gold, judge, answer_of) for part in ("greedy", "sampled"))
        return cls(greedy, sampled, vote_classes(sampled.answers, judge, sampled.questions))

    def values(self, policy: str) -> dict[Method, NDArray[np.float64]]:
        """Greedy; majority over one and over all samples; pass@N. All exact, without draws."""
        pool = RerankPool(self.sampled.problem_ids, self.classes, self.sampled.correct, {})
        every = sample_counts(pool.samples)
        ends = sorted({1, pool.samples})
        votes = vote_curves(pool, ends, draws=1, seed=0)["majority", ""]
        passed = selection_curves(pool, every)["pass", ""]
        return {
            Method(policy, "greedy", 1): self.greedy.correct[:, 0].astype(np.float64),
            **{Method(policy, "majority", n): votes[:, j] for j, n in enumerate(ends)},
            **{Method(policy, "pass", n): passed[:, j] for j, n in enumerate(every)},
        }


def _scoreboard(
    benchmark: str, grader_version: str, pools: Mapping[str, _Answers], rerank: Path
) -> Scoreboard:
    """All methods' values over the same problems in the same order; rerank values win where both exist."""
    first = next(iter(pools.values())).greedy
    values = {m: v for policy, pool in pools.items() for m, v in pool.values(policy).items()}
    table = read_table(rerank / "values.parquet")
    for column, wanted in (("benchmark", benchmark), ("grader", grader_version)):
        if table[column].unique().to_pylist() != [wanted]:
            raise PoolError(
                f"{rerank / 'values.parquet'}: not results of {column} {wanted}; make rerank_metrics again"
            )
    for method, by_problem in read_values(table).items():
        if by_problem.keys() != set(first.problem_ids):
            raise PoolError(f"{rerank / 'values.parquet'}: other problems than gold_answers; make it again")
        values[method] = np.array([by_problem[problem] for problem in first.problem_ids])
    return Scoreboard(benchmark, grader_version, first.problem_ids, first.levels, values)


def _with_rerank_rows(differences: pa.Table, rerank: Path) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(
        [differences, read_table(rerank / "differences.parquet", differences.column_names)]
    )


def _lengths(pools: Mapping[str, _Answers], rerank: Path, easy_levels: Collection[int]) -> pa.Table:
    """Tokens of a policy's greedy and sampled solutions; those of the rerank pool are more, so they count."""
    import pyarrow as pa

    reranked = read_table(rerank / "lengths.parquet")
    tables = [
        lengths_table(policy, decoding, pool, easy_levels)
        for policy, answers in pools.items()
        for decoding, pool in (("greedy", answers.greedy), ("sampled", answers.sampled))
        if decoding == "greedy" or policy not in reranked["policy"].to_pylist()
    ]
    return pa.concat_tables([*tables, reranked])


def _headline(metrics: pa.Table, differences: pa.Table) -> dict[str, Any]:
    greedy = {
        f"{row['policy']} {row['levels']}": round(row["accuracy"], 4)
        for row in metrics.to_pylist()
        if row["method"] == "greedy" and row["levels"] in ("easy", "hard", "all")
    }
    gains = {
        f"{row['first']} - {row['second']}": [round(row[c], 4) for c in ("difference", "ci_low", "ci_high")]
        for row in differences.to_pylist()
        if row["levels"] == "hard" and row["second"] != "majority"
    }
    return {"greedy_accuracy": greedy, "hard_differences": gains}
