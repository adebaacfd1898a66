"""Does an evaluator that has seen easy steps only judge hard solutions?"""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage


@stage(
    group="results",
    reads=["benchmark_samples", "rerank_scores", "gold_answers", "evaluator", "easy_step_labels"],
    recipe=["seed", "reward", "evaluation", "problems.source"],
    kinds={"parquet"},
    audit=True,
)
def evaluator_generalization(job: StageJob) -> dict[str, Any]:
    """Step and outcome AUROC, calibration and first-error F1 of the easy evaluator by level."""
    from e2h_pipeline.evaluation.generalization import evaluator_generalization
    from e2h_pipeline.evaluation.step_benchmarks.process_bench import easy_threshold

    checked = job.recipe.problems.source == "ladder"
    return evaluator_generalization(
        samples=job.path("benchmark_samples"),
        scores=job.path("rerank_scores"),
        gold=job.path("gold_answers"),
        out=job.out,
        work=job.work.folder,
        evaluator=f"easy_{job.recipe.reward.kind}",
        problems=job.recipe.problems,
        evaluation=job.recipe.evaluation,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
        runner=job.work.runner,
        threshold=easy_threshold(job.path("evaluator"), job.path("easy_step_labels")) if checked else None,
    )
