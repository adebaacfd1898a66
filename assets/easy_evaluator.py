"""The evaluator, trained on easy labels only; the recipe names its kind.

To compare kinds, run keys that differ only in `reward.kind`; they share policy and samples.
"""

from __future__ import annotations

from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.recipe.sections.reward import INITIAL
from e2h_pipeline.registry import DOMAINS, EVALUATOR_KINDS
from e2h_pipeline.stages.asset import stage

_LABELS = {"steps": "easy_step_labels", "outcomes": "easy_outcome_labels"}


def _starts_from(asset: str, recipe: RecipeSlice) -> bool:
    return bool(INITIAL[recipe.reward.training.init] == asset)


def _reads(labels: str, recipe: RecipeSlice) -> bool:
    return labels in EVALUATOR_KINDS.load(recipe.reward.kind).reads


@stage(
    group="evaluator",
    reads_if={
        "base_model": lambda recipe: _starts_from("base_model", recipe),
        "sft_policy": lambda recipe: _starts_from("sft_policy", recipe),
        "easy_step_labels": lambda recipe: _reads("steps", recipe),
        "easy_outcome_labels": lambda recipe: _reads("outcomes", recipe),
    },
    recipe=["seed", "reward", "problems.source"],
    methods=["reward.kind", "problems.source"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
    distributed=True,
)
def easy_evaluator(job: StageJob) -> dict[str, Any]:
    """The evaluator for reranking and rewards: one score per token, trained on easy labels only.
    `reward.kind` chooses its labels and its training."""
    from e2h_pipeline.rewards.train import train_reward_model

    return train_reward_model(
        init=job.path(INITIAL[job.recipe.reward.training.init]),
        labels={kind: job.path(asset) for kind, asset in _LABELS.items() if asset in job.inputs},
        options=job.recipe.reward,
        text=DOMAINS.load(job.recipe.problems.source).text,
        work=job.work,
    )
