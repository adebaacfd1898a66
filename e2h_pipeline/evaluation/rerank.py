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

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.choices import choices_table, told_why
from e2h_pipeline.evaluation.comparisons import WITHOUT_EVALUATOR, against_majority
from e2h_pipeline.evaluation.graded import (
    GradedPool,
    PoolFiles,
    load_graded,
    load_step_logits,
    load_written,
    vote_classes,
)
from e2h_pipeline.evaluation.lengths import lengths_table
from e2h_pipeline.evaluation.scoreboard import (
    Method,
    Scoreboard,
    differences_table,
    metrics_table,
    values_table,
)
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.registry import AGGREGATIONS
from e2h_pipeline.reranking.aggregate import Aggregation, log_solution_scores
from e2h_pipeline.reranking.curves import RerankPool, method_curves
from e2h_pipeline.statistics.bootstrap import Bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Evaluation, Rerank


@dataclass(frozen=True)
class Origin:
    """Where reranked numbers come from, as the tables name it.

    Attributes:
        grader: version of the grader.
        policy: who drew the samples.
        evaluator: who scored them.
    """

    benchmark: str
    grader: str
    policy: str
    evaluator: str


@dataclass(frozen=True)
class RerankTables:
    """What reranking a pool gives: accuracies, differences to majority, per-problem values."""

    metrics: pa.Table
    differences: pa.Table
    values: pa.Table

    def write(self, folder: Path) -> None:
        """One Parquet file each."""
        write_table(folder / "metrics.parquet", self.metrics)
        write_table(folder / "differences.parquet", self.differences)
        write_table(folder / "values.parquet", self.values)


def rerank_metrics(
    files: PoolFiles, domain: Domain, rerank: Rerank, evaluation: Evaluation, work: Work
) -> dict[str, Any]:
    """Grade a pool and rerank it.

    Writes `metrics.parquet`, `differences.parquet` (to majority), `values.parquet` (per problem),
    `choices.parquet` (who chose which solution) and `lengths.parquet` (how long solutions are).

    Args:
        domain: finds answers, and names the benchmark.

    Returns:
        Counts and the headline: accuracy of each method at N_max and its lead over majority, hard
            levels.
    """
    with sharded_grader(evaluation.grader, work.folder, work.runner, work.reporter) as judge:
        graded = load_graded(files.samples / "data", files.gold, judge, domain.answer_of)
        work.reporter.message(f"graded {graded.correct.size:,} samples of {len(graded.problem_ids)} problems")
        classes = vote_classes(graded.answers, judge, graded.questions)
        logits, offsets = load_step_logits(files.scores / "data", graded)
        pool = rerank_pool(graded, classes, logits, offsets, chosen_aggregations(rerank))
        choices = told_why(choices_table(graded, pool, logits, offsets), graded, judge)
    tables = rerank_tables(
        pool,
        graded.levels,
        Origin(domain.benchmark, judge.version, files.policy, files.evaluator),
        rerank.draws,
        evaluation.easy_levels,
        Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed),
    )
    tables.write(work.out)
    write_table(work.out / "choices.parquet", choices)
    written = load_written(files.scores / "data", graded)
    lengths = lengths_table(files.policy, "sampled", graded, evaluation.easy_levels, written)
    write_table(work.out / "lengths.parquet", lengths)
    return {
        "benchmark": domain.benchmark,
        "grader": judge.version,
        **graded.summary(),
        **_headline(tables.metrics, tables.differences, graded.samples),
    }


def chosen_aggregations(rerank: Rerank) -> dict[str, Aggregation]:
    """The aggregations that a recipe names, by name."""
    return {name: AGGREGATIONS.load(name) for name in rerank.aggregations}


def rerank_tables(
    pool: RerankPool,
    levels: NDArray[np.integer],
    origin: Origin,
    draws: int,
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> RerankTables:
    """Curves of every method over N, with intervals; the same for our own pools and for others'.

    Args:
        pool: P problems with M samples each.
        levels: (P,) `UNKNOWN_LEVEL` where a problem has none.
        draws: subsets per problem and N behind the votes.
        bootstrap: behind the intervals; its seed draws the subsets, too.
    """
    counts, curves = method_curves(pool, draws=draws, seed=bootstrap.seed)
    values = _methods(counts, curves, origin)
    board = Scoreboard(origin.benchmark, origin.grader, pool.problem_ids, levels, values)
    return RerankTables(
        metrics_table(board, easy_levels, bootstrap),
        differences_table(board, against_majority(board.values), easy_levels, bootstrap),
        values_table(board),
    )


def rerank_pool(
    graded: GradedPool,
    classes: NDArray[np.int64],
    logits: NDArray[np.float64],
    offsets: NDArray[np.int64],
    aggregations: Mapping[str, Aggregation],
) -> RerankPool:
    """A graded pool with its solution scores, from flat step logits; ready for reranking."""
    shape = graded.correct.shape
    logs = {
        name: log_solution_scores(logits, offsets, aggregation).reshape(shape)
        for name, aggregation in aggregations.items()
    }
    return RerankPool(graded.problem_ids, classes, graded.correct, logs)


def _methods(
    counts: list[int],
    curves: Mapping[tuple[str, str], NDArray[np.float64]],
    origin: Origin,
) -> dict[Method, NDArray[np.float64]]:
    found = {}
    for (method, aggregation), curve in curves.items():
        evaluator = "" if method in WITHOUT_EVALUATOR else origin.evaluator
        for j, n in enumerate(counts):
            found[Method(origin.policy, method, n, evaluator, aggregation)] = curve[:, j]
    return found


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
