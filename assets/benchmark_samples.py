"""The sample pool that reranking chooses from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, SEARCH_METHODS, resolve
from e2h_pipeline.stages.asset import stage

# Loaded only when used: an edit of the scoring code must not redraw pools without an evaluator.
_SCORER, _WATCH = (
    "e2h_pipeline.rewards.step_scorer:StepScorer",
    "e2h_pipeline.rewards.early_stop:easy_watch",
)


def _stops_early(recipe: RecipeSlice) -> bool:
    return bool(recipe.early_stop.enabled)


def _searches_with_scores(recipe: RecipeSlice) -> bool:
    return bool(SEARCH_METHODS.load(recipe.search.method)().needs_scorer)


def _asks_evaluator(recipe: RecipeSlice) -> bool:
    return _stops_early(recipe) or _searches_with_scores(recipe)


@stage(
    group="reranking",
    reads=["sft_policy", "benchmark_questions"],
    reads_if={"easy_evaluator": _asks_evaluator, "easy_step_labels": _stops_early},
    recipe=["seed", "problems.source", "sampling", "search", "early_stop"],
    methods=["problems.source", "search.method"],
    uses_if={_SCORER: _searches_with_scores, _WATCH: _stops_early},
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="sampling.samples",
)
def benchmark_samples(job: StageJob) -> dict[str, Any]:
    """N completions of every benchmark question by the SFT policy, with the recipe's search."""
    from e2h_pipeline.generation.sample_pool import Drawing, sample_pool

    domain = DOMAINS.load(job.recipe.problems.source)
    method, stop = SEARCH_METHODS.load(job.recipe.search.method)(), job.recipe.early_stop
    scorer = watch = None
    if method.needs_scorer:
        scorer = resolve(_SCORER)(job.path("easy_evaluator"), domain.text)
    if stop.enabled:
        watch = resolve(_WATCH)(job.path("easy_evaluator"), job.path("easy_step_labels"), stop, domain.text)
    drawing = Drawing(
        policy=job.path("sft_policy"),
        domain=domain,
        options=job.recipe.sampling,
        stage="benchmark_samples",
        method=method,
        search=job.recipe.search,
        scorer=scorer,
        watch=watch,
    )
    questions = read_table(job.path("benchmark_questions") / TABLE)
    return sample_pool(drawing, questions, replace(job.work, out=job.out / "data"))
