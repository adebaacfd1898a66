"""Early stopping of samples: the tokens it would save, and the accuracy it would cost."""

from __future__ import annotations

from typing import Any

from assets.judged import EVALUATOR, READ_BY
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, EVALUATOR_KINDS, STEP_CHECKERS, resolve
from e2h_pipeline.stages.asset import stage

_PARTIAL = "e2h_pipeline.evaluation.partial.metrics:partial_metrics"


def _judges_tokens(recipe: RecipeSlice) -> bool:
    """Whether the kind of evaluator judges a solution after each token."""
    return bool(getattr(EVALUATOR_KINDS.load(recipe.reward.kind), "judges_tokens", False))


@stage(
    group="results",
    reads=[
        "benchmark_samples",
        "rerank_scores",
        "gold_answers",
        "easy_evaluator",
        "easy_step_labels",
        "sft_policy",
    ],
    reads_if={"easy_outcome_labels": _judges_tokens},
    recipe=["seed", *EVALUATOR, "evaluation", "early_stop", "problems.source"],
    methods=["problems.source", "problems.source/step_checker", "reward.kind", *READ_BY, "evaluation.grader"],
    uses_if={_PARTIAL: _judges_tokens},
    kinds={"parquet"},
    audit=True,
)
def early_stop_metrics(job: StageJob) -> dict[str, Any]:
    """Tokens saved and accuracy lost if samples stop at step scores below a threshold.

    The threshold is from easy validation. For an evaluator that judges after every token, also its
    AUROC by share of tokens seen, and the majority vote filtered by it."""
    from e2h_pipeline.evaluation.early_stop import Trial, early_stop_metrics
    from e2h_pipeline.evaluation.graded import PoolFiles
    from e2h_pipeline.rewards.early_stop import right_lowest_scores

    source = job.recipe.problems.source
    domain = DOMAINS.load(source)
    easy = job.path("easy_evaluator"), job.path("easy_step_labels")
    files = PoolFiles(
        job.path("benchmark_samples"),
        job.path("rerank_scores"),
        job.path("gold_answers"),
        kind=job.recipe.reward.kind,
    )
    found = early_stop_metrics(
        files,
        Trial(
            job.recipe.early_stop,
            right_lowest_scores(*easy, domain.text),
            job.path("sft_policy"),
            STEP_CHECKERS.load(source),
        ),
        domain,
        job.recipe.evaluation,
        job.work,
    )
    if "easy_outcome_labels" in job.inputs:
        partial = resolve(_PARTIAL)
        outcomes = job.path("easy_outcome_labels")
        found["partial"] = partial(files, easy[0], outcomes, domain, job.recipe.evaluation, job.work)
    return found
