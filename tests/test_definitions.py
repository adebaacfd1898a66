"""The code location: it loads fast and light, follows the design, and re-makes what changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from ticks import evaluate
from write_generated import GENERATED

from assets.watched import WATCHED
from e2h_pipeline.definitions import build
from e2h_pipeline.orchestration.automation import automated
from e2h_pipeline.orchestration.planning import selection
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.spec import STAGES

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "datasets", "mlflow", "pandas", "sympy", "matplotlib", "vllm")
WATCHED_ASSETS = {watched.name for watched in WATCHED}


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from e2h_pipeline.definitions import defs; defs(); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_code_location_validates() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_what_is_generated_is_as_the_code_is(name: str) -> None:
    """Reviewers read the asset graph, with the inputs and methods of each asset."""
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), "stale: run `make generated`"


def test_stages_read_what_is_a_stage() -> None:
    names = {key.to_user_string() for key in build().resolve_asset_graph().get_all_asset_keys()}
    for name in names - WATCHED_ASSETS:
        assert set(STAGES[name].upstream) | set(STAGES[name].watches) <= names


def test_every_asset_is_described_owned_versioned_and_automated() -> None:
    for asset in build().resolve_all_asset_specs():
        made_here = asset.key.to_user_string() not in WATCHED_ASSETS
        assert asset.description and "Version = hash of the content" in asset.description
        assert asset.group_name and asset.owners and asset.kinds
        assert asset.tags["e2h/supervision"] in (("audit", "easy-only") if made_here else ("source",))
        assert ("dagster/code_references" in asset.metadata) == made_here
        assert bool(asset.code_version) == made_here == (asset.automation_condition is not None)


def test_gpu_stages_share_a_pool_and_the_others_another() -> None:
    graph = build().resolve_asset_graph()
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.get_all_asset_keys()}  # type: ignore[attr-defined]
    on_gpu = {name for name, found in pools.items() if found == {"gpu"}}
    assert {"base_model", "sft_policy", "easy_evaluator", "rl_policy", "benchmark_samples"} <= on_gpu
    assert {
        name for name, found in pools.items() if found == {"cpu"}
    } == pools.keys() - on_gpu - WATCHED_ASSETS
    assert not on_gpu & {"recipe", "easy_problems", "gold_answers", "rerank_metrics"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", [toy.KEY])
        yield found


class Automation:
    """Ticks of the automation sensor over the toy stages; each tick runs the requested assets."""

    def __init__(
        self,
        home: Path,
        instance: dg.DagsterInstance,
        stages: Sequence[dg.AssetsDefinition] = toy.TOYS,
    ) -> None:
        self._home, self._instance, self._stages = home, instance, stages
        self._definitions = dg.Definitions(assets=automated(stages), resources=toy.resources(home))
        self._cursor: dg.AssetDaemonCursor | None = None  # type: ignore[name-defined]

    def change_code(self, *assets: str) -> None:
        """Give these assets other code; the next tick sees it."""
        changed = [
            asset.map_asset_specs(lambda spec: spec.replace_attributes(code_version="new"))
            if asset.key.to_user_string() in assets
            else asset
            for asset in automated(toy.TOYS)
        ]
        self._definitions = dg.Definitions(assets=changed, resources=toy.resources(self._home))

    def tick(self) -> set[str]:
        """One evaluation: materializes the requested assets and returns them."""
        found = evaluate(self._definitions, self._instance, self._cursor)
        self._cursor = found.cursor
        asked = {
            asset.key.to_user_string(): asset for asset in self._stages if found.get_num_requested(asset.key)
        }
        if asked:
            toy.materialize(self._home, self._instance, list(asked.values()), raise_on_error=False)
        return set(asked)

    def settle(self) -> list[set[str]]:
        """Tick until nothing is requested."""
        ticks = []
        while (asked := self.tick()) and len(ticks) < 10:
            ticks.append(asked)
        return ticks


def _settled(tmp_path: Path, instance: dg.DagsterInstance) -> Automation:
    toy.materialize(tmp_path, instance)
    automation = Automation(tmp_path, instance)
    assert automation.settle() == []
    return automation


def test_equal_data_is_quiet(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    automation = _settled(tmp_path, instance)
    toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_easy])
    assert automation.settle() == []


def test_a_changed_recipe_goes_as_far_as_it_matters(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    automation = _settled(tmp_path, instance)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 6"))
    toy.materialize(tmp_path, instance, [toy.recipe])
    ticks = automation.settle()
    assert ticks[0] >= {"toy_easy", "toy_gold"}
    assert set().union(*ticks) == {"toy_easy", "toy_gold", "toy_policy", "toy_score"}


def test_equal_content_after_a_change_is_quiet(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    automation = _settled(tmp_path, instance)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 6"))
    toy.materialize(tmp_path, instance, [toy.recipe])
    automation.settle()
    toy.materialize(tmp_path, instance, [toy.toy_easy])  # again, with equal content
    assert automation.settle() == []


def test_only_existing_assets_are_updated(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """A new partition, and stages outside a selection, stay missing. Existing assets are
    updated."""
    instance.delete_dynamic_partition("experiment", toy.KEY)
    automation = Automation(tmp_path, instance)
    assert automation.settle() == []
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    assert automation.settle() == []
    toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_easy])
    assert automation.settle() == []
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 6"))
    toy.materialize(tmp_path, instance, [toy.recipe])
    assert automation.settle() == [{"toy_easy"}]


def test_a_run_that_is_watched_is_not_made_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """The automation looks while a first run makes stage after stage."""
    automation = Automation(tmp_path, instance)
    assert automation.settle() == []
    for stage in toy.TOYS:
        toy.materialize(tmp_path, instance, [stage])
        assert automation.tick() == set()
    assert automation.settle() == []


def test_a_change_while_a_stage_is_made_for_the_first_time_is_not_lost(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    automation = Automation(tmp_path, instance, [toy.recipe, toy.toy_disturbed])
    assert automation.settle() == []
    toy.materialize(tmp_path, instance, [toy.recipe])

    def edit() -> None:
        assert automation.tick() == set()
        toy.write_recipe(tmp_path, toy.RECIPE.replace("epochs: 2", "epochs: 4"))
        toy.materialize(tmp_path, instance, [toy.recipe])
        assert automation.tick() == set()

    toy.MEANWHILE.append(edit)
    toy.materialize(tmp_path, instance, [toy.toy_disturbed])
    assert automation.settle() == [{"toy_disturbed"}]


def test_what_failed_is_tried_again_once_with_what_waited_for_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    stages = [toy.recipe, toy.toy_broken, toy.toy_after]
    automation = Automation(tmp_path, instance, stages)
    assert automation.settle() == []
    toy.materialize(tmp_path, instance, stages, raise_on_error=False)
    assert automation.settle() == [{"toy_broken", "toy_after"}]


def test_a_recipe_that_failed_is_not_tried_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Its file has to be mended first, which is seen elsewhere."""
    automation = _settled(tmp_path, instance)
    toy.write_recipe(tmp_path, "no recipe")
    assert not toy.materialize(tmp_path, instance, [toy.recipe], raise_on_error=False).success
    assert automation.settle() == []


def test_changed_code_is_remade(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    automation = _settled(tmp_path, instance)
    changed = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(code_version="new"))
        if asset.key == dg.AssetKey("toy_policy")
        else asset
        for asset in automated(toy.TOYS)
    ]
    definitions = dg.Definitions(assets=changed, resources=toy.resources(tmp_path))
    found = evaluate(definitions, instance, automation._cursor)
    assert found.total_requested == 1
    assert found.get_num_requested(dg.AssetKey("toy_policy")) == 1


def test_code_and_recipe_that_change_together_are_made_once(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Code and recipe of the policy change. The policy is not made from the old recipe first."""
    automation = _settled(tmp_path, instance)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("epochs: 2", "epochs: 4"))
    automation.change_code("recipe", "toy_policy")
    ticks = automation.settle()
    assert ticks[0] == {"recipe"}
    assert sum("toy_policy" in tick for tick in ticks) == 1
    assert {"toy_policy", "toy_score"} <= ticks[1]


def test_what_is_only_watched_cannot_be_run() -> None:
    with pytest.raises(ValueError, match="names no stage"):
        selection("problem_files")
    assert selection("+problem_source").of(Recipe.from_key("ladder")) == {"problem_source", "recipe"}
