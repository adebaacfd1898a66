"""Right or wrong, step by step, on easy problems only."""

from __future__ import annotations

from typing import Any

from assets.watched import LABEL_FILES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice, Sampling
from e2h_pipeline.stages.asset import stage

# Completions are drawn as the benchmark's samples are; how many is labels.completions.
_SAMPLING = [f"sampling.{field}" for field in Sampling.model_fields if field != "samples"]


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """The files of labels, where labels come from files."""
    from e2h_pipeline.problems.supplied_files import label_fingerprint

    return label_fingerprint(recipe.labels)


@stage(
    group="evaluator",
    reads=["easy_samples", "easy_problems", "sft_policy"],
    recipe=["seed", "labels", "problems.source", "evaluation.grader", *_SAMPLING],
    kinds={"parquet"},
    gpu=True,
    samples=True,
    external=_fingerprint,
    watches=[LABEL_FILES],
)
def easy_step_labels(job: StageJob) -> dict[str, Any]:
    """A label for each step of solutions to easy problems, up to the first error."""
    from e2h_pipeline.supervision.step_labels import label_easy_samples

    return label_easy_samples(
        easy_samples=job.path("easy_samples") / "data",
        easy_problems=job.path("easy_problems"),
        out=job.out,
        options=job.recipe.labels,
        problems=job.recipe.problems,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
        policy=job.path("sft_policy"),
        work=job.work.folder,
        sampling=job.recipe.sampling,
        grader=job.recipe.evaluation.grader,
        engine=job.work.engine,
        runner=job.work.runner,
    )
