"""One asset makes the evaluator of the recipe's kind, and waits only for that kind's inputs."""

from pathlib import Path
from typing import Any

import pytest

import assets.benchmark_samples
import assets.easy_evaluator  # noqa: F401 - fills BODIES
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.request import Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.rewards import train
from e2h_pipeline.stages.spec import STAGES, narrow
from resources.compute import BODIES

STEPS, OUTCOMES = "easy_step_labels", "easy_outcome_labels"
READS = {
    "prm": {STEPS},
    "orm": {OUTCOMES},
    "oprm": {STEPS, OUTCOMES},
    "pairwise": {OUTCOMES},
    "goal_conditioned": {OUTCOMES},
    "weak_to_strong": {STEPS},
    "generative": {STEPS},
}
OUTSIDE = "ladder/strict=false/reward.kind=outside/reward.evaluator=prm"


@pytest.mark.parametrize(("init", "start"), [("base", "base_model"), ("sft", "sft_policy")])
@pytest.mark.parametrize("kind", sorted(EVALUATOR_KINDS.entries.keys() - {"outside"}))
def test_an_evaluator_waits_for_what_it_reads(kind: str, init: str, start: str) -> None:
    stage = STAGES["easy_evaluator"]
    recipe = Recipe.from_key(f"ladder/reward.kind={kind}/reward.training.init={init}")
    assert set(stage.inputs(narrow(recipe, stage.sections))) == READS[kind] | {start}


def test_an_evaluator_of_others_waits_for_labels_alone() -> None:
    stage = STAGES["easy_evaluator"]
    assert set(stage.inputs(narrow(Recipe.from_key(OUTSIDE), stage.sections))) == {STEPS}
    assert not stage.distributed(narrow(Recipe.from_key(OUTSIDE), stage.sections))


def test_pools_of_samples_are_shared_by_all_evaluators_unless_they_ask_them() -> None:
    """The fields of an evaluator enter the key of a pool only where it looks at samples."""
    stage = STAGES["benchmark_samples"]

    def told(*overrides: str) -> dict[str, Any]:
        recipe = Recipe.from_key("/".join(("ladder/strict=false", *overrides)))
        return narrow(recipe, stage.sections).as_dict()

    others = ("reward.kind=outside", "reward.evaluator=prm")
    assert told() == told("reward.kind=orm") == told(*others)
    asked = told(*others, "early_stop.enabled=true")
    assert asked != told("early_stop.enabled=true") and asked["reward"]["evaluator"][0]["model"] == "prm"


def test_the_body_hands_the_right_folders_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(train, "train_reward_model", lambda **given: seen.update(given) or {})
    stage, store = STAGES["easy_evaluator"], ArtifactStore(tmp_path / "home")

    def content(draft: Draft) -> None:
        (draft.out / "data").write_bytes(b"content")

    recipe = Recipe.from_key("ladder/reward.kind=orm/reward.training.init=sft")
    view = narrow(recipe, stage.sections)
    inputs = {name: store.obtain(Request(name, "c0de"), content)[0] for name in stage.inputs(view)}
    work = Work(tmp_path / "out", tmp_path / "work", recipe.seed)
    BODIES["easy_evaluator"](StageJob(view, inputs, work))
    assert seen["init"] == inputs["sft_policy"].path
    assert seen["labels"] == {"outcomes": inputs[OUTCOMES].path}
    assert (seen["options"], seen["work"]) == (recipe.reward, work)
