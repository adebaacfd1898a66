"""Reinforcement learning against the easy evaluator, on questions of all levels: one asset per algorithm, and the one
that the recipe names.

Algorithms that the recipe does not name are not run: their artifacts say so, and cost nothing. To compare them, run keys
that differ in `rl.algorithm` only.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from assets.evaluators import leave_note
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage
from resources.compute import StageBody

ALGORITHMS = {
    "ppo": "The SFT policy after PPO: a critic, step rewards, KL taken off the reward (paper section 4.2).",
    "grpo": "The SFT policy after step-level GRPO: samples of a question are each other's baseline.",
    "rest": "The base model fine-tuned, round by round, on right solutions that the last round's policy drew (ReST-EM).",
    "dpo": "The SFT policy after rounds of preference training on pairs of its solutions: DPO, SimPO, ORPO or SPPO.",
}
_ROUNDS = ("rest", "dpo")


def _online(name: str) -> StageBody:
    """Learn from each batch of rollouts at once."""

    def body(job: StageJob) -> dict[str, Any]:
        if name != job.recipe.rl.algorithm:
            return _not_asked(job)
        from e2h_pipeline.rl.online.grpo import Grpo
        from e2h_pipeline.rl.online.loop import Algorithm, train_policy
        from e2h_pipeline.rl.online.ppo import Ppo

        algorithms: dict[str, type[Algorithm]] = {"ppo": Ppo, "grpo": Grpo}
        return train_policy(
            algorithms[name](),
            policy=job.path("sft_policy"),
            evaluator=job.path("evaluator"),
            easy_problems=job.path("easy_problems"),
            hard_questions=job.path("hard_questions"),
            out=job.out,
            work=job.work.folder,
            options=job.recipe.rl,
            seed=job.recipe.seed,
            grader=job.recipe.evaluation.grader,
            reporter=job.work.reporter,
        )

    return body


def _rounds(name: str) -> StageBody:
    """Draw a pool, choose, train, and again."""

    def body(job: StageJob) -> dict[str, Any]:
        if name != job.recipe.rl.algorithm:
            return _not_asked(job)
        from e2h_pipeline.rl.rounds.loop import train_in_rounds
        from e2h_pipeline.rl.rounds.preference import IterativePreference
        from e2h_pipeline.rl.rounds.rest_em import RestEm
        from e2h_pipeline.rl.rounds.run import Method

        methods: dict[str, type[Method]] = {"rest": RestEm, "dpo": IterativePreference}
        return train_in_rounds(
            methods[name](),
            base=job.path("base_model"),
            policy=job.path("sft_policy"),
            evaluator=job.path("evaluator"),
            easy_problems=job.path("easy_problems"),
            hard_questions=job.path("hard_questions"),
            out=job.out,
            work=job.work.folder,
            options=job.recipe.rl,
            seed=job.recipe.seed,
            grader_name=job.recipe.evaluation.grader,
            reporter=job.work.reporter,
            engine=job.work.engine,
            runner=job.work.runner,
        )

    return body


def _not_asked(job: StageJob) -> dict[str, Any]:
    return leave_note(job, f"the recipe has rl.algorithm={job.recipe.rl.algorithm}")


def _policy(name: str, description: str) -> dg.AssetsDefinition:
    body = (_rounds if name in _ROUNDS else _online)(name)
    body.__doc__ = f"{description} The checkpoint is chosen on easy validation."
    return stage(
        name=f"{name}_policy",
        group="policy",
        reads=[
            *(["base_model"] if name in _ROUNDS else []),
            "sft_policy",
            "evaluator",
            "easy_problems",
            "hard_questions",
        ],
        recipe=["seed", "rl", "evaluation.grader"],
        kinds={"huggingface", "pytorch"},
        gpu=True,
        samples=name in _ROUNDS,
    )(body)


ppo_policy, grpo_policy, rest_policy, dpo_policy = (_policy(name, text) for name, text in ALGORITHMS.items())


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
