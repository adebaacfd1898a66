"""The evaluators: one asset per kind of easy supervision, and the one that the recipe names.

Kinds that the recipe does not name are not trained: their artifacts say so, and cost nothing. To compare
kinds, run keys that differ in `reward.kind` only; they share policy and samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.stages.asset import stage

if TYPE_CHECKING:
    from e2h_pipeline.rewards.train import Kind

EVALUATORS = ("easy_prm", "easy_orm", "easy_oprm", "easy_pairwise")
_STEPS, _OUTCOMES = "easy_step_labels", "easy_outcome_labels"


def leave_note(job: StageJob, reason: str) -> dict[str, Any]:
    """What stands in an artifact that the recipe does not ask for."""
    note = {"not_trained": reason}
    (job.out / "not_trained.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    return note


def _train(job: StageJob, kind: Kind) -> dict[str, Any]:
    """Train an evaluator if the recipe names its kind; else leave a note."""
    chosen = job.recipe.reward.kind
    if kind != chosen:
        return leave_note(job, f"the recipe has reward.kind={chosen}")
    from e2h_pipeline.rewards.train import train_reward_model

    options = getattr(job.recipe, kind)
    return train_reward_model(
        kind=kind,
        init=job.path("base_model" if options.init == "base" else "sft_policy"),
        step_labels=job.path(_STEPS) if _STEPS in job.inputs else None,
        outcome_labels=job.path(_OUTCOMES) if _OUTCOMES in job.inputs else None,
        out=job.out,
        work=job.work.folder,
        options=options,
        seed=job.recipe.seed,
        reporter=job.work.reporter,
    )


def _evaluator(kind: Kind, *labels: str) -> Callable[[Callable[[StageJob], dict[str, Any]]], Any]:
    return stage(
        group="evaluator",
        reads=["base_model", "sft_policy", *labels],
        recipe=["seed", "reward", kind],
        kinds={"huggingface", "pytorch"},
        gpu=True,
        distributed=True,
    )


@_evaluator("prm", _STEPS)
def easy_prm(job: StageJob) -> dict[str, Any]:
    """Process reward model: a step scorer (token-classification head on step ends) that has seen easy
    step labels only."""
    return _train(job, "prm")


@_evaluator("orm", _OUTCOMES)
def easy_orm(job: StageJob) -> dict[str, Any]:
    """Outcome reward model: the same head, trained on whether final answers of easy problems are right."""
    return _train(job, "orm")


@_evaluator("oprm", _STEPS, _OUTCOMES)
def easy_oprm(job: StageJob) -> dict[str, Any]:
    """Outcome and process reward model: one head, both kinds of easy labels (paper section 3.3)."""
    return _train(job, "oprm")


@_evaluator("pairwise", _OUTCOMES)
def easy_pairwise(job: StageJob) -> dict[str, Any]:
    """Bradley-Terry reward model: right solutions of easy problems above wrong ones."""
    return _train(job, "pairwise")


@stage(group="evaluator", reads=EVALUATORS, recipe=["reward"], kinds={"huggingface"})
def evaluator(job: StageJob) -> dict[str, Any]:
    """The evaluator that reranks and rewards: of the trained kinds, the one that the recipe names."""
    from e2h_pipeline.artifacts.links import link_files

    kind = job.recipe.reward.kind
    return {"kind": kind, "files": link_files(job.path(f"easy_{kind}"), job.out)}
