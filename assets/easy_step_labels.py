"""Labels of steps as right or wrong, on easy problems only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.watched import LABEL_FILES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice, Sampling, with_inner
from e2h_pipeline.registry import LABEL_SOURCES
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import Condition, Where
from e2h_pipeline.supervision.source import GRADER, METHODS, READABLE


def _reads(asset: str) -> Condition:
    """Whether a source of the recipe needs an asset. Human labels need no policy and no samples."""
    return lambda recipe: any(
        asset in LABEL_SOURCES.load(options.source)().reads(options) for options in with_inner(recipe.labels)
    )


def _uses(registry: str) -> Condition:
    """Whether a source of the recipe loads from a registry."""
    return lambda recipe: any(
        registry in LABEL_SOURCES.load(options.source)().methods for options in with_inner(recipe.labels)
    )


def _samples(recipe: RecipeSlice) -> bool:
    """Whether a source of the recipe draws with the engine."""
    return any(LABEL_SOURCES.load(options.source)().draws(options) for options in with_inner(recipe.labels))


# Completions share the sampling settings of the benchmark; their number is labels.completions.
_SAMPLING = [Where(f"sampling.{field}", _samples) for field in Sampling.model_fields if field != "samples"]


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    return [
        path
        for options in with_inner(recipe.labels)
        for path in LABEL_SOURCES.load(options.source)().files(options)
    ]


def _fingerprint(recipe: RecipeSlice) -> dict[str, dict[str, str]]:
    """The files of each source that reads files; `1 active, prm800k` are those that the first source buys from."""
    from e2h_pipeline.problems.files import file_hashes

    chains = [(place, list(with_inner([first]))) for place, first in enumerate(recipe.labels, start=1)]
    hashes = {
        f"{place} {', '.join(options.source for options in chain[: depth + 1])}": file_hashes(
            LABEL_SOURCES.load(chain[depth].source)().files(chain[depth])
        )
        for place, chain in chains
        for depth in range(len(chain))
    }
    return {name: found for name, found in hashes.items() if found}


@stage(
    group="evaluator",
    reads=["easy_problems"],
    reads_if={name: _reads(name) for name in READABLE},
    recipe=["seed", "labels", "problems.source", Where("evaluation.grader", _uses(GRADER)), *_SAMPLING],
    methods=["labels.source", "problems.source", *(Where(field, _uses(field)) for field in METHODS)],
    kinds={"parquet"},
    gpu=True,
    samples=_samples,
    external=_fingerprint,
    outside=_files,
    watches=[LABEL_FILES],
)
def easy_step_labels(job: StageJob) -> dict[str, Any]:
    """A label for each step of solutions to easy problems, up to the first error."""
    from e2h_pipeline.registry import DOMAINS
    from e2h_pipeline.supervision.step_labels import label_easy_steps

    return label_easy_steps(
        inputs={name: job.path(name) for name in job.inputs},
        labels=job.recipe.labels,
        domain=DOMAINS.load(job.recipe.problems.source),
        sampling=job.recipe.sampling,
        grader=job.recipe.evaluation.grader,
        work=job.work,
    )
