"""What reinforcement learning did to answers it never saw."""

from __future__ import annotations

from typing import Any

from assets.evaluators import leave_note
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage

_ROLLOUTS = "rollouts.parquet"


@stage(
    group="results",
    reads=["rl_policy", "gold_answers"],
    recipe=[
        "seed",
        "evaluation.easy_levels",
        "evaluation.bootstrap",
        "evaluation.confidence",
        "evaluation.grader",
    ],
    kinds={"parquet"},
    audit=True,
)
def rl_audit(job: StageJob) -> dict[str, Any]:
    """Gold accuracy by level over training, and against the evaluator's score over KL: is the evaluator
    over-optimized? Read afterwards, never fed back."""
    policy = job.inputs["rl_policy"]
    if not (policy.path / _ROLLOUTS).is_file():
        return leave_note(job, "rl_policy has no rollouts")
    from e2h_pipeline.evaluation.rl_audit import rl_audit

    return rl_audit(
        rollouts=policy.path / _ROLLOUTS,
        gold=job.path("gold_answers"),
        out=job.out,
        work=job.work.folder,
        best_update=policy.manifest.summary["best_update"],
        evaluation=job.recipe.evaluation,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
        runner=job.work.runner,
    )
