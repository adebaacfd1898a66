"""How far an experiment goes, and what a selection makes of it."""

from pathlib import Path

import pytest

from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.operations.runner import RunError, run_experiment
from e2h_pipeline.orchestration.planning import plan_by_store, selection, stage_order, stages_of
from e2h_pipeline.recipe import Recipe, RecipeError
from resources.engine import EngineResource

HUMAN = "human_steps.sources=prm800k"
EVALUATOR_ONLY = {
    "recipe",
    "problem_source",
    "easy_problems",
    "hard_questions",
    "benchmark_questions",
    "base_model",
    "easy_step_labels",
    "easy_evaluator",
    "evaluator_generalization",
    "report",
}


def _recipe(*overrides: str) -> Recipe:
    return Recipe.from_key("/".join(["ladder", *overrides]))


def test_an_evaluator_of_human_labels_needs_no_policy_and_no_samples() -> None:
    assert stages_of(_recipe("scope=evaluator", HUMAN, "labels.source=prm800k")) == EVALUATOR_ONLY


def test_labels_of_samples_need_the_policy_that_drew_them() -> None:
    more = stages_of(_recipe("scope=evaluator", HUMAN)) - EVALUATOR_ONLY
    assert more == {"sft_policy", "easy_samples", "easy_solutions"}


def test_reranking_stops_before_reinforcement_learning() -> None:
    found = stages_of(_recipe("scope=reranking"))
    assert {"rerank_metrics", "benchmark_samples", "gold_answers"} <= found
    assert not {"rl_policy", "rl_answers", "rl_audit", "benchmark_metrics"} & found


SEARCHED = {"searched_samples", "search_metrics"}


def test_a_pipeline_is_everything_but_searches_that_nobody_asked_for() -> None:
    assert set(stage_order()) - SEARCHED == stages_of(_recipe())


def test_searches_are_made_where_the_recipe_names_some() -> None:
    assert set(stage_order()) == stages_of(_recipe("searches.method=dvts"))
    assert stages_of(_recipe("searches.method=dvts", "scope=reranking")) >= SEARCHED
    assert not stages_of(_recipe("scope=reranking")) & SEARCHED


def test_an_evaluator_alone_needs_something_to_judge() -> None:
    with pytest.raises(RecipeError, match=r"name some in human_steps\.sources"):
        _recipe("scope=evaluator")


def test_a_plan_counts_the_stages_of_the_scope(tmp_path: Path) -> None:
    key = "/".join(["ladder", HUMAN, "labels.source=prm800k", "scope=evaluator"])
    plan = plan_by_store(ArtifactStore(tmp_path), key, EngineResource.from_environment())
    assert {stage.name for stage in plan.stages} == EVALUATOR_ONLY


def test_a_plus_reaches_only_what_the_recipe_needs() -> None:
    chosen = selection("+easy_evaluator")
    human = chosen.of(_recipe("labels.source=prm800k"))
    # The checks compare labels that train with held-out questions.
    assert human == EVALUATOR_ONLY - {"evaluator_generalization", "report"}
    assert "sft_policy" in chosen.of(_recipe())
    assert selection("easy_evaluator").of(_recipe()) == {"easy_evaluator"}
    assert "rl_policy" in selection("easy_evaluator+").of(_recipe())


@pytest.mark.parametrize("text", ["nonsense", "key:nonsense", "+easy_evaluatr", "((("])
def test_a_selection_that_names_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        selection(text)


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ("easy_evaluator", r"--select: ladder has no recipe yet; select it too"),
        ("recipe,easy_evaluator", r"easy_evaluator reads .*base_model.*select \+easy_evaluator"),
        ("nonsense", r"--select: 'nonsense' names no stage; there are recipe, "),
    ],
)
def test_a_stage_whose_inputs_cannot_be_made_is_refused_before_anything_runs(
    select: str, why: str, tmp_path: Path
) -> None:
    seen: list[object] = []
    with pytest.raises(RunError, match=why):
        run_experiment("ladder", tmp_path, select, seen.append)
    assert not seen
    assert not any((tmp_path / "store").glob("*/*"))
