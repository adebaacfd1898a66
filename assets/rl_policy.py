"""Reinforcement learning against the easy evaluator, on questions of all levels: one asset per algorithm, and the one
that the recipe names.

Algorithms that the recipe does not name are not run: their artifacts say so, and cost nothing. To compare them, run keys
that differ in `rl.algorithm` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from assets._stage import stage
from assets.evaluators import leave_note
from e2h_pipeline.artifacts.job import StageJob

if TYPE_CHECKING:
    from e2h_pipeline.rl.loop import Algorithm

ALGORITHMS = {
    "ppo": "The SFT policy after PPO: a critic, step rewards, KL taken off the reward (paper section 4.2).",
    "grpo": "The SFT policy after step-level GRPO: samples of a question are each other's baseline.",
}


def _algorithm(name: str) -> Algorithm:
    from e2h_pipeline.rl.grpo import Grpo
    from e2h_pipeline.rl.ppo import Ppo

    algorithms: dict[str, type[Algorithm]] = {"ppo": Ppo, "grpo": Grpo}
    return algorithms[name]()


def _policy(name: str, description: str) -> dg.AssetsDefinition:
    def body(job: StageJob) -> dict[str, Any]:
        chosen = job.recipe.rl.algorithm
        if name != chosen:
            return leave_note(job, f"the recipe has rl.algorithm={chosen}")
        from e2h_pipeline.rl.loop import train_policy

        return train_policy(
            _algorithm(name),
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

    body.__doc__ = f"{description} The checkpoint is chosen on easy validation."
    return stage(
        name=f"{name}_policy",
        group="policy",
        reads=["sft_policy", "evaluator", "easy_problems", "hard_questions"],
        recipe=["seed", "rl", "evaluation.grader"],
        kinds={"huggingface", "pytorch"},
        gpu=True,
    )(body)


ppo_policy, grpo_policy = (_policy(name, text) for name, text in ALGORITHMS.items())


@stage(group="policy", reads=[f"{name}_policy" for name in ALGORITHMS], recipe=["rl"], kinds={"huggingface"})
def rl_policy(job: StageJob) -> dict[str, Any]:
    """The policy after reinforcement learning: of the trained ones, the one that the recipe names."""
    from e2h_pipeline.artifacts.links import link_files

    trained = job.inputs[f"{job.recipe.rl.algorithm}_policy"]
    return {
        "algorithm": job.recipe.rl.algorithm,
        **trained.manifest.summary,
        "files": link_files(trained.path, job.out),
    }
