"""The policy trained on questions of all levels; the recipe names the algorithm.

To compare algorithms, run keys that differ only in `rl.algorithm`.
"""

from __future__ import annotations

from typing import Any

from assets.judged import EVALUATOR, READ_BY
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.generation.engines.fleet import Settings
from e2h_pipeline.recipe import OnlineRl, RecipeSlice
from e2h_pipeline.registry import ALGORITHMS, DOMAINS
from e2h_pipeline.rl.algorithms import EVERY_INPUT
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import Condition

# Inputs of some algorithms only, also of installed packages. Dagster's graph shows all.
_FURTHER = sorted({asset for word in ALGORITHMS.words() for asset in ALGORITHMS.load(word).reads})


def _reads(asset: str) -> Condition:
    def condition(recipe: RecipeSlice) -> bool:
        return asset in ALGORITHMS.load(recipe.rl.algorithm).reads

    return condition


def _samples(recipe: RecipeSlice) -> bool:
    """Whether the host's engine draws: for rounds, and for online algorithms where the host gives
    them rollout engines."""
    online = isinstance(recipe.rl, OnlineRl) and Settings.from_environment().engines > 0
    return online or bool(ALGORITHMS.load(recipe.rl.algorithm).samples)


def _distributed(recipe: RecipeSlice) -> bool:
    return bool(ALGORITHMS.load(recipe.rl.algorithm).distributed)


@stage(
    group="policy",
    reads=EVERY_INPUT,
    reads_if={asset: _reads(asset) for asset in _FURTHER},
    recipe=["seed", "rl", *EVALUATOR, "evaluation.grader", "problems.source"],
    methods=["rl.algorithm", *READ_BY, "problems.source", "evaluation.grader"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
    samples=_samples,
    distributed=_distributed,
)
def rl_policy(job: StageJob) -> dict[str, Any]:
    """The policy after training on questions of all levels against the easy evaluator.

    The recipe names the algorithm; PPO is the paper's (section 4.2). The checkpoint is chosen on
    easy validation.
    """
    from e2h_pipeline.rl.algorithms import Algorithm, RlJob

    recipe = job.recipe
    algorithm: Algorithm = ALGORITHMS.load(recipe.rl.algorithm)()
    summary = algorithm.train(
        RlJob(
            inputs={asset: job.path(asset) for asset in job.inputs},
            options=recipe.rl,
            domain=DOMAINS.load(recipe.problems.source),
            grader=recipe.evaluation.grader,
            work=job.work,
        )
    )
    return {"algorithm": recipe.rl.algorithm, **summary}
