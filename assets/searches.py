"""Searches guided by the easy evaluator, compared at equal compute. Only recipes with `searches` have
these stages."""

from __future__ import annotations

from typing import Any

from assets.judged import EVALUATOR, READ_BY
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, SEARCHES, resolve
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import Where

# Loaded only when used: an edit of one kind of evaluator must not redraw the searches of others.
_JUDGE = "e2h_pipeline.rewards.token_values:GoalJudge"


def searches(recipe: RecipeSlice) -> bool:
    """Whether the recipe compares searches."""
    return bool(recipe.searches)


def _judges_tokens(recipe: RecipeSlice) -> bool:
    methods = (SEARCHES.load(search.method)() for search in recipe.searches)
    return any(getattr(method, "needs_token_judge", False) for method in methods)


def _of_sft(recipe: RecipeSlice) -> bool:
    return bool(recipe.search_comparison.policy == "sft")


def _of_rl(recipe: RecipeSlice) -> bool:
    return not _of_sft(recipe)


@stage(
    group="search",
    reads=["benchmark_questions", "easy_problems", "easy_evaluator"],
    reads_if={"sft_policy": _of_sft, "rl_policy": _of_rl},
    recipe=[
        "seed",
        "problems.source",
        "sampling",
        "scoring",
        "searches",
        "search_comparison",
        *(Where(field, searches) for field in EVALUATOR),
    ],
    methods=["problems.source", "searches.method", *(Where(field, searches) for field in READ_BY)],
    uses_if={_JUDGE: _judges_tokens},
    kinds={"parquet"},
    gpu=True,
    samples=True,
    grows="search_comparison.samples",
    wanted=searches,
)
def searched_samples(job: StageJob) -> dict[str, Any]:
    """Samples that every search of the recipe finds for benchmark questions and easy validation
    problems, and independent ones to compare with; with costs and step scores."""
    from e2h_pipeline.evaluation.searching.draw import BENCHMARK, VALIDATION, Job, draw_searches

    recipe = job.recipe
    return draw_searches(
        Job(
            policy=job.path(f"{recipe.search_comparison.policy}_policy"),
            evaluator=job.path("easy_evaluator"),
            questions={BENCHMARK: job.path("benchmark_questions"), VALIDATION: job.path("easy_problems")},
            domain=DOMAINS.load(recipe.problems.source),
            searches=[(search, SEARCHES.load(search.method)()) for search in recipe.searches],
            comparison=recipe.search_comparison,
            sampling=recipe.sampling,
            scoring=recipe.scoring,
            token_judge=resolve(_JUDGE) if _judges_tokens(recipe) else None,
            work=job.work,
        )
    )


@stage(
    group="search",
    reads=["searched_samples", "gold_answers", "easy_problems"],
    recipe=[
        "seed",
        "searches",
        "search_comparison",
        "reward.kind",
        "rerank",
        "evaluation",
        "problems.source",
    ],
    methods=["problems.source", "rerank.aggregations", "evaluation.grader"],
    kinds={"parquet"},
    audit=True,
    wanted=searches,
)
def search_metrics(job: StageJob) -> dict[str, Any]:
    """Accuracy against compute of every search, paired with votes over independent samples at equal
    compute; the compute-optimal search; and where search exploits the evaluator."""
    from e2h_pipeline.evaluation.searching.metrics import Files, search_metrics

    recipe = job.recipe
    return search_metrics(
        Files(job.path("searched_samples"), job.path("gold_answers"), job.path("easy_problems")),
        recipe.searches,
        DOMAINS.load(recipe.problems.source),
        recipe.rerank,
        recipe.evaluation,
        (recipe.search_comparison.policy, f"easy_{recipe.reward.kind}"),
        job.work,
    )
