"""The rerank_metrics stage: what an evaluator's scores are worth when choosing among N samples.

Majority, weighted vote and best-of-N for every aggregation, and pass@N as the bound that no choice
can beat, over N = 1, 2, 4 .. N_max, by level. All methods see the same problems and the same
subsets, so differences to the majority vote are paired.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.shards import LocalRunner, Runner
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.choices import choices_table
from e2h_pipeline.evaluation.graded import (
    GradedPool,
    load_graded,
    load_step_logits,
    vote_classes,
)
from e2h_pipeline.evaluation.lengths import lengths_table
from e2h_pipeline.evaluation.scoreboard import (
    Difference,
    Method,
    Scoreboard,
    differences_table,
    metrics_table,
    values_table,
)
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.reranking.aggregate import log_solution_scores
from e2h_pipeline.reranking.curves import SamplePool, rerank_curves
from e2h_pipeline.statistics.bootstrap import Bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Evaluation, Rerank

_WITHOUT_EVALUATOR = ("majority", "pass")


@dataclass(frozen=True)
class RerankTables:
    """What reranking a pool gives: accuracies, differences to majority, per-problem values."""

    metrics: pa.Table
    differences: pa.Table
    values: pa.Table


def rerank_metrics(
    samples: Path,
    scores: Path,
    gold: Path,
    out: Path,
    work: Path,
    *,
    benchmark: str,
    policy: str,
    evaluator: str,
    rerank: Rerank,
    evaluation: Evaluation,
    easy_levels: Collection[int],
    seed: int,
    reporter: Reporter,
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Grade a pool, rerank it, and write metrics, differences to majority, per-problem values, who chose which
    solution, and how long solutions are.

    Args:
        samples: benchmark_samples artifact.
        scores: rerank_scores artifact.
        gold: gold_answers artifact.
        out: folder for `metrics.parquet`, `differences.parquet`, `values.parquet`, `choices.parquet`,
            `lengths.parquet`.
        benchmark: name of the benchmark, as LADDER500.
        policy: who sampled the pool.
        evaluator: who scored it.
        work: where grades are kept until the artifact is made.
        runner: who grades; this process where unset.

    Returns:
        Counts and the headline: accuracy of each method at N_max and its lead over majority, hard levels.
    """
    with sharded_grader(evaluation.grader, work, runner or LocalRunner(), reporter) as judge:
        graded = load_graded(samples / "data", gold, judge)
        reporter.message(f"graded {graded.correct.size:,} samples of {len(graded.problem_ids)} problems")
        classes = vote_classes(graded.answers, judge)
    logits, offsets = load_step_logits(scores / "data", graded)
    pool = sample_pool(graded, classes, logits, offsets, rerank.aggregations)
    tables = rerank_tables(
        pool,
        graded.levels,
        benchmark=benchmark,
        grader_version=judge.version,
        policy=policy,
        evaluator=evaluator,
        draws=rerank.draws,
        easy_levels=easy_levels,
        bootstrap=Bootstrap(evaluation.bootstrap, evaluation.confidence, seed),
    )
    write_table(out / "metrics.parquet", tables.metrics)
    write_table(out / "differences.parquet", tables.differences)
    write_table(out / "values.parquet", tables.values)
    write_table(out / "choices.parquet", choices_table(graded, pool, logits, offsets))
    write_table(out / "lengths.parquet", lengths_table(policy, "sampled", graded, easy_levels))
    return {
        "benchmark": benchmark,
        "grader": judge.version,
        **graded.summary(),
        **_headline(tables.metrics, tables.differences, graded.samples),
    }


def rerank_tables(
    pool: SamplePool,
    levels: NDArray[np.integer],
    *,
    benchmark: str,
    grader_version: str,
    policy: str,
    evaluator: str,
    draws: int,
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> RerankTables:
    """Curves of every method over N, with intervals; the same for our own pools and for others'.

    Args:
        pool: P problems with M samples each.
        levels: (P,)
        draws: subsets per problem and N behind the votes.
        bootstrap: behind the intervals; its seed draws the subsets, too.
    """
    counts, curves = rerank_curves(pool, draws=draws, seed=bootstrap.seed)
    values = _methods(counts, curves, policy, evaluator)
    board = Scoreboard(benchmark, grader_version, pool.problem_ids, levels, values)
    return RerankTables(
        metrics_table(board, easy_levels, bootstrap),
        differences_table(board, _against_majority(board), easy_levels, bootstrap),
        values_table(board),
    )


def sample_pool(
    graded: GradedPool,
    classes: NDArray[np.int64],
    logits: NDArray[np.float64],
    offsets: NDArray[np.int64],
    aggregations: Collection[str],
) -> SamplePool:
    """A graded pool with its solution scores, from flat step logits; ready for reranking."""
    shape = graded.correct.shape
    logs = {name: log_solution_scores(logits, offsets, name).reshape(shape) for name in aggregations}
    return SamplePool(graded.problem_ids, classes, graded.correct, logs)


def _methods(
    counts: list[int],
    curves: Mapping[tuple[str, str], NDArray[np.float64]],
    policy: str,
    evaluator: str,
) -> dict[Method, NDArray[np.float64]]:
    return {
        Method(policy, method, n, "" if method in _WITHOUT_EVALUATOR else evaluator, aggregation): curve[:, j]
        for (method, aggregation), curve in curves.items()
        for j, n in enumerate(counts)
    }


def _against_majority(board: Scoreboard) -> list[Difference]:
    return [
        Difference(method, Method(method.policy, "majority", method.n), method.name, "majority")
        for method in board.values
        if method.method not in _WITHOUT_EVALUATOR
    ]


def _headline(metrics: pa.Table, differences: pa.Table, n: int) -> dict[str, Any]:
    """Hard-level results at the largest N, for manifests and the Dagster page."""
    accuracy = {
        f"{row['method']} {row['aggregation']}".strip(): round(row["accuracy"], 4)
        for row in metrics.to_pylist()
        if row["n"] == n and row["levels"] == "hard"
    }
    lead = {
        row["first"]: [round(row[c], 4) for c in ("difference", "ci_low", "ci_high")]
        for row in differences.to_pylist()
        if row["n"] == n and row["levels"] == "hard"
    }
    return {"n": n, "hard_accuracy": accuracy, "hard_lead_over_majority": lead}
