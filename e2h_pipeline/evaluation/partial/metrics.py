"""The audit of an evaluator that judges tokens: its tables and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import GradedPool, PoolFiles, load_graded, vote_classes
from e2h_pipeline.evaluation.partial.dropping import running
from e2h_pipeline.evaluation.partial.filter_votes import filter_rows, filter_table, plot
from e2h_pipeline.evaluation.partial.seen import auroc_rows, auroc_table
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.reranking.curves import RerankPool
from e2h_pipeline.rewards.token_values import SCORE, Q, token_values
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups

if TYPE_CHECKING:
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Evaluation


def partial_metrics(
    files: PoolFiles, evaluator: Path, outcomes: Path, domain: Domain, evaluation: Evaluation, work: Work
) -> dict[str, Any]:
    """Write `partial_auroc.parquet`, `filter_votes.parquet` and `filter_votes.png`.

    Args:
        evaluator: one that judges tokens.
        outcomes: easy_outcome_labels artifact; its validation part gives the thresholds.

    Returns counts, and the change of the vote on hard levels at the paper's threshold.
    """
    with grader(evaluation.grader) as judge:
        graded = load_graded(files.samples / "data", files.gold, judge, domain.answer_of)
        classes = vote_classes(graded.answers, judge, graded.questions)
    pool = RerankPool(graded.problem_ids, classes, graded.correct, {})
    work.reporter.message(f"{graded.correct.size:,} samples are judged after every token")
    values = token_values(evaluator, _solutions(graded), domain.text)
    right = easy_right(evaluator, outcomes, domain)
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    groups = level_groups(graded.levels, evaluation.easy_levels)
    auroc = list(auroc_rows(values, graded, groups, bootstrap))
    votes = list(filter_rows(values, right, pool, groups, bootstrap))
    write_table(work.out / "partial_auroc.parquet", auroc_table(auroc))
    write_table(work.out / "filter_votes.parquet", filter_table(votes))
    plot([row for row in votes if row["levels"] == "all"], work.out / "filter_votes.png")
    return {
        "samples_judged": int(graded.correct.size),
        "right_validation_solutions": len(next(iter(right.values()))),
        "filter_at_paper_threshold": {
            f"{row['levels']} {row['metric']}": [round(row[c], 4) for c in ("value", "ci_low", "ci_high")]
            for row in votes
            if (row["signal"], row["chosen"]) == (Q, "paper") and row["levels"] in ("easy", "hard")
        },
    }


def easy_right(evaluator: Path, outcomes: Path, domain: Domain) -> dict[str, NDArray[np.float64]]:
    """The lowest value of each signal in right easy validation solutions, ascending."""
    columns = ("split", "question", "completion", "finished", "outcome")
    rows = read_table(outcomes / "data.parquet", columns).to_pylist()
    right = [
        (row["question"], row["completion"], row["finished"])
        for row in rows
        if row["split"] == "validation" and row["outcome"] == 1
    ]
    if not right:
        return {Q: np.empty(0), SCORE: np.empty(0)}
    values = token_values(evaluator, right, domain.text)
    lowest = {name: running(signal, values.lengths).final for name, signal in values.signals.items()}
    return {name: np.sort(found[np.isfinite(found)].astype(np.float64)) for name, found in lowest.items()}


def _solutions(graded: GradedPool) -> list[tuple[str, str, bool]]:
    """Question, completion and whether it is finished, of every sample."""
    questions = [question for question in graded.questions for _ in range(graded.samples)]
    finished = graded.finished.reshape(-1).tolist()
    return list(zip(questions, graded.completions, finished, strict=True))
