"""The pretrained model that everything starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.watched import MODEL_FILES
from e2h_pipeline.artifacts.hashing import fingerprint
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.stages.asset import stage


def _sources(recipe: RecipeSlice) -> Sequence[Path]:
    from e2h_pipeline.models.base import local_source

    source = local_source(recipe.base)
    return [source] if source else []


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """Files of a shipped or local model. The recipe has name and commit of a Hub model."""
    return {name: digest for source in _sources(recipe) for name, digest in fingerprint(source).items()}


@stage(
    group="policy",
    recipe=["base", "problems.source", "problems.world"],
    methods=["problems.source", "problems.source/corpus"],
    kinds={"huggingface", "pytorch"},
    gpu=True,
    external=_fingerprint,
    outside=_sources,
    watches=[MODEL_FILES],
)
def base_model(job: StageJob) -> dict[str, Any]:
    """The base model as a Hugging Face folder: shipped, fetched, converted from GGUF, or trained
    from scratch on the domain's corpus."""
    from e2h_pipeline.models.tokenizer_fit import require_carries
    from e2h_pipeline.registry import DOMAINS
    from e2h_pipeline.training.from_nothing import make_base_model

    summary = make_base_model(job.recipe.base, job.recipe.problems, job.work)
    if not job.recipe.base.train:  # else the tokenizer is the domain's own
        require_carries(job.out, DOMAINS.load(job.recipe.problems.source))
    return summary
