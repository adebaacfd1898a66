"""The sample pool that reranking chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.judged import EVALUATOR, READ_BY
from assets.watched import SAMPLE_FILES, SUPPLIED_SAMPLES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, SAMPLE_SOURCES, SEARCH_METHODS, resolve
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import Where

if TYPE_CHECKING:
    from e2h_pipeline.generation.sample_pool import Drawing

# Loaded only when used: an edit of the scoring code must not redraw pools without an evaluator.
_SCORER, _JUDGE, _WATCH = (
    "e2h_pipeline.rewards.growing:search_scorer",
    "e2h_pipeline.rewards.token_values:GoalJudge",
    "e2h_pipeline.rewards.early_stop:easy_watch",
)


def _drawn(recipe: RecipeSlice) -> bool:
    """Whether the policy draws the samples."""
    return bool(recipe.samples.drawn)


def _stops_early(recipe: RecipeSlice) -> bool:
    return bool(recipe.early_stop.enabled)


def _searches_with_scores(recipe: RecipeSlice) -> bool:
    return bool(SEARCH_METHODS.load(recipe.search.method)().needs_scorer)


def _judges_tokens(recipe: RecipeSlice) -> bool:
    return bool(getattr(SEARCH_METHODS.load(recipe.search.method)(), "needs_token_judge", False))


def _asks_evaluator(recipe: RecipeSlice) -> bool:
    return _stops_early(recipe) or _searches_with_scores(recipe) or _judges_tokens(recipe)


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    return SAMPLE_SOURCES.load(recipe.samples.source)().files(recipe.samples)


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    """The files of samples by other people, if any."""
    from e2h_pipeline.problems.files import file_hashes

    return file_hashes(_files(recipe))


@stage(
    group="reranking",
    reads=["benchmark_questions"],
    reads_if={
        "sft_policy": _drawn,
        "easy_evaluator": _asks_evaluator,
        "easy_step_labels": _stops_early,
    },
    recipe=[
        "seed",
        "problems.source",
        SUPPLIED_SAMPLES,
        *(Where(section, _drawn) for section in ("sampling", "search", "early_stop")),
        *(Where(field, _asks_evaluator) for field in EVALUATOR),
    ],
    methods=[
        "problems.source",
        "samples.source",
        Where("search.method", _drawn),
        *(Where(field, _asks_evaluator) for field in READ_BY),
    ],
    uses_if={_SCORER: _searches_with_scores, _JUDGE: _judges_tokens, _WATCH: _stops_early},
    kinds={"parquet"},
    gpu=True,
    samples=_drawn,
    grows="sampling.samples",
    external=_fingerprint,
    outside=_files,
    watches=[SAMPLE_FILES],
)
def benchmark_samples(job: StageJob) -> dict[str, Any]:
    """N completions of every benchmark question: by the SFT policy, with the recipe's search, or by
    others, from a file."""
    from e2h_pipeline.generation.sources.protocol import PoolJob

    options = job.recipe.samples
    return SAMPLE_SOURCES.load(options.source)().pool(
        PoolJob(
            options,
            DOMAINS.load(job.recipe.problems.source),
            read_table(job.path("benchmark_questions") / TABLE),
            partial(_drawing, job),
            replace(job.work, out=job.out / "data"),
        )
    )


def _drawing(job: StageJob) -> Drawing:
    """How the policy draws."""
    from e2h_pipeline.generation.sample_pool import Drawing

    domain = DOMAINS.load(job.recipe.problems.source)
    method, stop = SEARCH_METHODS.load(job.recipe.search.method)(), job.recipe.early_stop
    scorer = judge = watch = None
    if _judges_tokens(job.recipe):
        judge = resolve(_JUDGE)(job.path("easy_evaluator"), domain.text)
    if method.needs_scorer:
        scorer = resolve(_SCORER)(job.path("easy_evaluator"), domain.text)
    if stop.enabled:
        watch = resolve(_WATCH)(job.path("easy_evaluator"), job.path("easy_step_labels"), stop, domain.text)
    return Drawing(
        policy=job.path("sft_policy"),
        domain=domain,
        options=job.recipe.sampling,
        stage="benchmark_samples",
        method=method,
        search=job.recipe.search,
        scorer=scorer,
        watch=watch,
        token_judge=judge,
    )
