"""The evaluator: trained on easy labels only, or taken from others; the recipe names its kind.

To compare kinds, run keys that differ only in `reward.kind`; they share policy and samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.judged import READ_BY
from assets.watched import EVALUATOR_FILES
from e2h_pipeline.artifacts.hashing import fingerprint
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, EVALUATOR_KINDS, EVALUATOR_MAKERS
from e2h_pipeline.stages.asset import stage

_LABELS = {"steps": "easy_step_labels", "outcomes": "easy_outcome_labels"}


def _initial(recipe: RecipeSlice) -> str | None:
    """The asset that training starts from; None where others have trained the evaluator."""
    initial: str | None = recipe.reward.initial
    return initial


def _reads(labels: str, recipe: RecipeSlice) -> bool:
    return labels in EVALUATOR_KINDS.load(recipe.reward.kind).reads


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    """Files and folders on this machine that it is made of. The recipe has the commits of Hub models."""
    sources = EVALUATOR_KINDS.load(recipe.reward.kind)().sources(recipe.reward)
    return [Path(source) for source in sources if Path(source).exists()]


def _fingerprint(recipe: RecipeSlice) -> dict[str, dict[str, str]] | None:
    return {str(number): fingerprint(path) for number, path in enumerate(_files(recipe))} or None


@stage(
    group="evaluator",
    reads_if={
        "base_model": lambda recipe: _initial(recipe) == "base_model",
        "sft_policy": lambda recipe: _initial(recipe) == "sft_policy",
        "easy_step_labels": lambda recipe: _reads("steps", recipe),
        "easy_outcome_labels": lambda recipe: _reads("outcomes", recipe),
    },
    recipe=["seed", "reward", "problems.source"],
    methods=["reward.kind", "reward.kind/maker", *READ_BY, "problems.source"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
    distributed=lambda recipe: _initial(recipe) is not None,
    external=_fingerprint,
    outside=_files,
    watches=[EVALUATOR_FILES],
)
def easy_evaluator(job: StageJob) -> dict[str, Any]:
    """The evaluator for reranking and rewards: a score per step, trained on easy labels only.
    `reward.kind` chooses its labels and its training; `outside` takes one that others have trained,
    and such an experiment is not strict."""
    reward, initial = job.recipe.reward, _initial(job.recipe)
    summary: dict[str, Any] = EVALUATOR_MAKERS.load(reward.kind)(
        init=job.path(initial) if initial else None,
        labels={kind: job.path(asset) for kind, asset in _LABELS.items() if asset in job.inputs},
        options=reward,
        text=DOMAINS.load(job.recipe.problems.source).text,
        work=job.work,
    )
    return summary
