"""The effect of reinforcement learning on accuracy, by gold answers unseen in training."""

from __future__ import annotations

import json
from typing import Any

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
    methods=["evaluation.grader"],
    kinds={"parquet"},
    audit=True,
)
def rl_audit(job: StageJob) -> dict[str, Any]:
    """Gold accuracy by level during training, and against the evaluator's score over KL: is the
    evaluator over-optimized? Computed afterwards, never fed back."""
    policy = job.inputs["rl_policy"]
    if not (policy.path / _ROLLOUTS).is_file():
        note = {"not_trained": "rl_policy has no rollouts"}
        (job.out / "not_trained.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
        return note
    from e2h_pipeline.evaluation.rl_audit import rl_audit

    return rl_audit(
        policy.path / _ROLLOUTS,
        job.path("gold_answers"),
        policy.manifest.summary["best_update"],
        job.recipe.evaluation,
        job.work,
    )
