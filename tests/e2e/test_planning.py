"""States of stages after a run: made, missing or stale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.planning import plans, running_keys, stage_order, stages_of
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.sweeps.sensors import due
from e2h_pipeline.sweeps.spec import Sweep
from resources.engine import EngineResource

pytestmark = pytest.mark.slow


@pytest.fixture
def instance(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("E2H_HOME", str(tiny_home))
    with open_instance(tiny_home) as found:
        yield found


def test_all_is_made_after_a_run_and_another_key_reuses_it(
    instance: dg.DagsterInstance, tiny_home: Path
) -> None:
    store, engine = ArtifactStore(tiny_home), EngineResource()
    made, same, other = plans(instance, store, ["tiny", "tiny/seed=0", "tiny/sft.epochs=3"], engine)
    wanted = stages_of(Recipe.from_key("tiny", recipe_folders(tiny_home)))  # without searches
    assert [stage.name for stage in made.stages] == [name for name in stage_order() if name in wanted]
    assert made.done
    # Equal recipes: Dagster has no record of the second key, the store has all of it.
    assert same.state == "missing"
    assert all(stage.artifact for stage in same.stages)
    states = {stage.name: stage for stage in other.stages}
    assert other.next_request is not None
    assert other.next_request.asset == "recipe"
    assert states["base_answers"].artifact is not None
    assert states["sft_policy"].request is not None
    assert states["sft_policy"].artifact is None
    assert states["easy_samples"].request is None  # its input does not exist yet


def test_only_what_is_not_made_is_due(instance: dg.DagsterInstance, tiny_home: Path) -> None:
    sweep = Sweep.model_validate(
        {"name": "s", "recipe": "tiny", "axes": {"sft.epochs": [3, 4]}, "select": "+base_model"}
    )
    store, engine = ArtifactStore(tiny_home), EngineResource()
    found = due(instance, store, sweep, engine)
    assert [plan.key for plan in found] == ["tiny/sft.epochs=3", "tiny/sft.epochs=4"]
    assert {stage.name for stage in found[0].stages} == {"recipe", "base_model"}
    assert not running_keys(instance)


def test_data_that_is_gone_holds_up_no_other_plan(instance: dg.DagsterInstance, tiny_home: Path) -> None:
    keys = ["tiny/problems.path=nothing-there/problems.source=math", "tiny"]
    gone, made = plans(instance, ArtifactStore(tiny_home), keys, EngineResource())
    source = next(stage for stage in gone.stages if stage.name == "problem_source")
    assert (gone.state, source.request) == ("missing", None)
    assert made.done
