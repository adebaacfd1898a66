"""Plans and states of sweeps with many members: what members share is read and worked out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
import toy_stages as toy
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from e2h_pipeline.artifacts import store as store_module
from e2h_pipeline.artifacts.code_version import Code
from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.manifest import Manifest
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration import requests as requests_module
from e2h_pipeline.orchestration.planning import stage_order
from e2h_pipeline.orchestration.recorded import recorded_artifacts
from e2h_pipeline.orchestration.requests import Read, Requests
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe, RecipeError
from e2h_pipeline.recipe.layers import recipe_layers
from e2h_pipeline.stages.spec import STAGES, Stage, Where, narrow, request_of
from e2h_pipeline.sweeps.spec import Sweep
from e2h_pipeline.sweeps.status import sweep_status
from resources.engine import EngineResource
from resources.store import ARTIFACT_KEY

ENGINE = EngineResource()
OVERRIDES = st.sampled_from(
    (
        "seed=3",
        "rl.kl=0.1",
        "rl.algorithm=dpo",
        "problems.seed=2",
        "labels.0.source=shepherd",
        "labels.0.weight=0.5",
        "reward.kind=orm",
        "sampling.top_k=3",
        "sampling.samples=8",
        "evaluation.grader=exact",
        "base.train=true",
        "strict=false",
    )
)


def key_of(overrides: list[str]) -> str:
    return "/".join(["ladder", *sorted(overrides)])


def made_up(name: str, key: str) -> Artifact:
    """An artifact whose content follows from its key, as far as a request can see."""
    manifest = Manifest(
        asset=name, key=key, code_version="c", data_version=digest_json(key), files={}, created=""
    )
    return Artifact(Path(name), manifest)


def request_alone(name: str, recipe: Recipe, made: Mapping[str, Artifact], key: str) -> Request | None:
    """The request of a stage of one experiment, with nothing shared."""
    view = narrow(recipe, STAGES[name].sections)
    wanted = STAGES[name].inputs(view)
    if not set(wanted) <= made.keys():
        return None
    try:
        return request_of(STAGES[name], view, {parent: made[parent] for parent in wanted}, ENGINE, key)
    except (OSError, ValueError):
        return None  # its files are not here


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(OVERRIDES, unique=True, max_size=4).map(key_of), min_size=2, max_size=4))
def test_shared_requests_are_those_of_each_experiment_alone(keys: list[str]) -> None:
    """With artifacts that differ as soon as anything above them does."""
    shared = Requests(ENGINE)
    for key in keys:
        try:
            recipe = Recipe.from_key(key)
        except RecipeError:
            continue  # overrides that do not go together
        read, made = Read(recipe), dict[str, Artifact]()
        for name in stage_order():
            alone, found = request_alone(name, recipe, made, key), shared.of(STAGES[name], read, made)
            assert (found and found.key) == (alone and alone.key), (key, name)
            if alone is not None:
                made[name] = made_up(name, alone.key)


def test_a_condition_on_another_section_separates_slices() -> None:
    spec = Stage(
        "made_up", "m", (), (Where("sampling.top_k", lambda recipe: recipe.seed == 3),), False, Code("c", ())
    )
    shared = Requests(ENGINE)
    keys = ["ladder/sampling.top_k=5", "ladder/sampling.top_k=5/seed=3", "ladder/sampling.top_k=5/seed=4"]
    found = [shared.of(spec, Read(Recipe.from_key(key)), {}) for key in keys]
    assert [request.recipe["sampling"]["top_k"] == 5 for request in found if request] == [False, True, False]
    assert found[0] is found[2]  # nothing that the stage reads differs


@given(st.lists(OVERRIDES, unique=True, max_size=4).map(key_of))
def test_no_recipe_changes_the_files_that_recipes_share(key: str) -> None:
    before = digest_json(recipe_layers("ladder", [RECIPE_FOLDER]))
    with suppress(RecipeError):
        Recipe.from_key(key)
    assert digest_json(recipe_layers("ladder", [RECIPE_FOLDER])) == before


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for epochs in (1, 2, 1):
        file.write_text(f"extends: ladder\nsft: {{epochs: {epochs}}}\n")
        assert Recipe.from_key("mine", [tmp_path]).sft.epochs == epochs


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def sweep(members: int) -> Sweep:
    return Sweep.model_validate(
        {"name": "s", "recipe": "ladder", "axes": {"rl.kl": [0.01 * (1 + i) for i in range(members)]}}
    )


def fill(store: ArtifactStore, keys: list[str]) -> None:
    """Every stage of every key, with a small file."""

    def body(name: str, key: str, draft: Draft) -> None:
        (draft.out / "data.txt").write_text(f"{name} {key}")

    for key in keys:
        read, made, requests = Read(Recipe.from_key(key)), dict[str, Artifact](), Requests(ENGINE)
        for name in stage_order():
            request = requests.of(STAGES[name], read, made)
            assert request is not None
            made[name] = store.obtain(request, partial(body, name, request.key))[0]


def test_the_work_of_a_status_grows_with_what_differs(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One parse for each member, one reading of each manifest, one slice of a recipe for each that
    differs, and no query more for twice the members."""
    store, done = ArtifactStore(tmp_path), Counter[str]()

    def counted(what: str, call: Any) -> Any:
        def count(*arguments: Any, **named: Any) -> Any:
            done[what] += 1
            return call(*arguments, **named)

        return count

    def query(*_: Any) -> None:
        done["queries"] += 1

    fill(store, [f"ladder/rl.kl={0.01 * (1 + i)}" for i in range(4)])
    artifacts = len(list(store.root.glob("*/*/manifest.json")))
    monkeypatch.setattr(Recipe, "model_validate", counted("parses", Recipe.model_validate))
    monkeypatch.setattr(store_module, "read_manifest", counted("manifests", store_module.read_manifest))
    monkeypatch.setattr(requests_module, "narrow", counted("slices", requests_module.narrow))
    sqlalchemy.event.listen(Engine, "before_cursor_execute", query)
    try:
        sweep_status(instance, store, sweep(2))
        few, _ = dict(done), done.clear()
        rows = sweep_status(instance, store, sweep(4))
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", query)
    assert all(len(row.artifacts) == len(stage_order()) for row in rows)
    assert done["parses"] == 4
    assert done["manifests"] == artifacts
    assert done["queries"] == few["queries"] > 0
    differ = done["slices"] - few["slices"]  # of two members more
    assert 0 < differ < len(stage_order())
    assert done["slices"] == len(stage_order()) + 3 * differ // 2


def test_recorded_artifacts_are_those_that_dagster_tells(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Of the latest materialization; none where that is from outside a run."""
    stages = [toy.recipe, toy.toy_easy]
    toy.materialize(tmp_path, instance, stages)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 5"))
    toy.materialize(tmp_path, instance, stages)
    for name in ("recipe", "toy_easy"):
        asked = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[toy.KEY])
        records = instance.fetch_materializations(asked, limit=10).records
        event = records[0].asset_materialization
        assert len(records) == 2 and event is not None
        told = {toy.KEY: event.metadata[ARTIFACT_KEY].value}
        assert recorded_artifacts(instance, name, [toy.KEY, "other"]) == told
        instance.report_runless_asset_event(
            dg.AssetMaterialization(name, partition=toy.KEY, metadata={ARTIFACT_KEY: "f" * 64})
        )
        assert recorded_artifacts(instance, name, [toy.KEY]) == {}
    assert recorded_artifacts(instance, "toy_gold", ["other"]) == {}
