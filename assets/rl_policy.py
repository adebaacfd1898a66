"""Reinforcement learning against the easy evaluator, on questions of all levels."""

from __future__ import annotations

from typing import Any

from assets._stage import stage
from e2h_pipeline.artifacts.job import StageJob


@stage(
    group="policy",
    reads=["sft_policy", "evaluator", "easy_problems", "hard_questions"],
    recipe=["seed", "rl", "evaluation.grader"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
)
def rl_policy(job: StageJob) -> dict[str, Any]:
    """The SFT policy after PPO on step rewards of the easy evaluator, with outcome rewards on easy answers
    only; the checkpoint is chosen on easy validation."""
    from e2h_pipeline.rl.ppo import train_ppo

    return train_ppo(
        policy=job.path("sft_policy"),
        evaluator=job.path("evaluator"),
        easy_problems=job.path("easy_problems"),
        hard_questions=job.path("hard_questions"),
        out=job.out,
        work=job.work,
        options=job.recipe.rl,
        seed=job.recipe.seed,
        grader=job.recipe.evaluation.grader,
        reporter=job.reporter,
    )
