"""Can an evaluator trained on easy steps judge hard solutions?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets.judged import EVALUATOR, READ_BY
from assets.watched import HUMAN_STEP_FILES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RecipeSlice
from e2h_pipeline.registry import DOMAINS, STEP_CHECKERS
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import beyond

_POOL = ("benchmark_samples", "rerank_scores", "gold_answers")
_PROBLEMS = ("easy_problems", "hard_questions", "benchmark_questions")


def _by_people(recipe: RecipeSlice) -> bool:
    return bool(recipe.human_steps.sources)


def _files(recipe: RecipeSlice) -> Sequence[Path]:
    from e2h_pipeline.evaluation.step_benchmarks.human_steps import human_step_files

    return human_step_files(recipe.human_steps)


def _fingerprint(recipe: RecipeSlice) -> dict[str, str]:
    from e2h_pipeline.problems.files import file_hashes

    return file_hashes(_files(recipe))


@stage(
    group="results",
    reads=["easy_evaluator", "easy_step_labels"],
    reads_if={**dict.fromkeys(_POOL, beyond("evaluator")), **dict.fromkeys(_PROBLEMS, _by_people)},
    recipe=["seed", "scope", *EVALUATOR, "evaluation", "problems.source", "human_steps"],
    methods=["problems.source", "problems.source/step_checker", "reward.kind", *READ_BY, "evaluation.grader"],
    kinds={"parquet"},
    gpu=True,
    audit=True,
    external=_fingerprint,
    outside=_files,
    watches=[HUMAN_STEP_FILES],
)
def evaluator_generalization(job: StageJob) -> dict[str, Any]:
    """Step and outcome AUROC, calibration and first-error F1 of the easy evaluator by level: on the
    sample pool, and on steps that people labelled."""
    recipe, domain = job.recipe, DOMAINS.load(job.recipe.problems.source)
    evaluator, labels = job.path("easy_evaluator"), job.path("easy_step_labels")
    summary = _on_pool(job) if _POOL[0] in job.inputs else {}
    if _by_people(recipe):
        from e2h_pipeline.evaluation.human_steps import judge_human_steps

        problems = [job.path(name) for name in _PROBLEMS]
        found = judge_human_steps(
            recipe.human_steps, evaluator, labels, problems, recipe.evaluation, domain.text, job.work
        )
        summary = {**summary, "human_steps": found}
    return summary


def _on_pool(job: StageJob) -> dict[str, Any]:
    from e2h_pipeline.evaluation.easy_steps import easy_threshold
    from e2h_pipeline.evaluation.generalization import evaluator_generalization
    from e2h_pipeline.evaluation.graded import PoolFiles

    source = job.recipe.problems.source
    domain, checker = DOMAINS.load(source), STEP_CHECKERS.load(source)
    easy = job.path("easy_evaluator"), job.path("easy_step_labels")
    return evaluator_generalization(
        PoolFiles(
            job.path("benchmark_samples"),
            job.path("rerank_scores"),
            job.path("gold_answers"),
            kind=job.recipe.reward.kind,
        ),
        domain,
        checker,
        easy_threshold(*easy, domain.text) if checker else None,
        job.recipe.evaluation,
        job.work,
    )
