"""Can an evaluator trained on easy steps judge hard solutions?"""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.registry import DOMAINS, STEP_CHECKERS
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=["benchmark_samples", "rerank_scores", "gold_answers", "easy_evaluator", "easy_step_labels"],
    recipe=["seed", "reward.kind", "evaluation", "problems.source"],
    methods=["problems.source", "problems.source/step_checker", "reward.kind", "evaluation.grader"],
    kinds={"parquet"},
    audit=True,
)
def evaluator_generalization(job: StageJob) -> dict[str, Any]:
    """Step and outcome AUROC, calibration and first-error F1 of the easy evaluator by level."""
    from e2h_pipeline.evaluation.generalization import evaluator_generalization
    from e2h_pipeline.evaluation.graded import PoolFiles
    from e2h_pipeline.evaluation.step_benchmarks.process_bench import easy_threshold

    source = job.recipe.problems.source
    domain, checker = DOMAINS.load(source), STEP_CHECKERS.load(source)
    easy = job.path("easy_evaluator"), job.path("easy_step_labels")
    return evaluator_generalization(
        PoolFiles(
            job.path("benchmark_samples"),
            job.path("rerank_scores"),
            job.path("gold_answers"),
            kind=job.recipe.reward.kind,
        ),
        domain,
        checker,
        easy_threshold(*easy, domain.text) if checker else None,
        job.recipe.evaluation,
        job.work,
    )
