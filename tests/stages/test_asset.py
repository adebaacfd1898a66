"""The stage decorator: computing, reusing, reports to Dagster, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy

from e2h_pipeline.recipe import Problems, Recipe, RecipeError
from e2h_pipeline.stages.spec import narrow


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def _versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.to_user_string(): event.materialization.tags["dagster/data_version"]
        for event in result.get_asset_materialization_events()
        if event.asset_key and event.materialization.tags
    }


def test_nothing_changed_nothing_computed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    first = toy.materialize(tmp_path, instance)
    second = toy.materialize(tmp_path, instance)
    assert toy.computed(first) == {"recipe", "toy_easy", "toy_gold", "toy_policy", "toy_score"}
    assert toy.computed(second) == set()
    assert _versions(first) == _versions(second)


def test_a_knob_remakes_exactly_what_reads_it_and_what_it_changes(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(tmp_path, instance)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("epochs: 2", "epochs: 4"))
    assert toy.computed(toy.materialize(tmp_path, instance)) == {"recipe", "toy_policy", "toy_score"}


def test_a_change_stops_where_content_is_equal(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance)
    toy.write_recipe(tmp_path, toy.RECIPE.replace("easy_limit: 4", "easy_limit: 4, seed: 1"))
    result = toy.materialize(tmp_path, instance)
    assert toy.computed(result) == {"recipe", "toy_easy", "toy_gold", "toy_score"}  # not toy_policy


def test_experiments_share_what_they_have_in_common(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance)
    other = f"{toy.KEY}/sft.epochs=6"
    instance.add_dynamic_partitions("experiment", [other])
    result = dg.materialize(
        toy.TOYS, instance=instance, partition_key=other, resources=toy.resources(tmp_path)
    )
    assert toy.computed(result) == {"recipe", "toy_policy", "toy_score"}


def test_metadata_says_what_people_ask(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result = toy.materialize(tmp_path, instance)
    (easy,) = result.asset_materializations_for_node("toy_easy")
    assert easy.metadata["dagster/row_count"].value == 4
    assert "| 1 | 4 |" in str(easy.metadata["rows_by_level"].value)
    assert "preview" in easy.metadata
    (score,) = result.asset_materializations_for_node("toy_score")
    assert score.metadata["summary/accuracy"].value == 1.0
    assert "toy_easy" in str(score.metadata["lineage"].value)
    assert Path(str(score.metadata["path"].value)).is_relative_to(tmp_path / "store")


def test_runs_can_be_found_by_experiment_recipe_and_seed(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    result = toy.materialize(tmp_path, instance, [toy.recipe])
    tags = {"e2h/experiment": toy.KEY, "e2h/recipe": "toy", "e2h/seed": "0"}
    assert [run.run_id for run in instance.get_runs(dg.RunsFilter(tags=tags))] == [result.run_id]


def test_an_asset_links_the_code_of_its_body() -> None:
    (spec,) = toy.toy_easy.specs
    (place,) = spec.metadata["dagster/code_references"].code_references
    assert place.file_path == toy.__file__
    assert "toy_easy" in "".join(Path(place.file_path).read_text().splitlines()[place.line_number - 1 :][:2])


def test_a_forged_event_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance)
    instance.report_runless_asset_event(
        dg.AssetMaterialization("toy_easy", partition=toy.KEY, tags={"dagster/data_version": "EVIL"})
    )
    result = toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_policy], raise_on_error=False)
    failure = result.failure_data_for_node("toy_policy")
    assert failure is not None and failure.user_failure_data is not None
    assert "toy_easy for toy was reported from outside a run" in str(failure.user_failure_data.description)


def test_a_missing_upstream_is_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result = toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_policy], raise_on_error=False)
    failure = result.failure_data_for_node("toy_policy")
    assert failure is not None and failure.user_failure_data is not None
    assert failure.user_failure_data.description == (
        "toy_easy was never materialized for toy; materialize it first"
    )


@pytest.mark.parametrize(
    ("key", "says", "seed"),
    [
        ("toy/sed=1", "recipe key 'toy/sed=1': no field 'sed'; did you mean 'seed'?", None),
        ("toy/seed=4/rl.updats=1", "recipe key 'toy/seed=4/rl.updats=1': no field 'rl.", "4"),
        ("toy/seed=3/rl.updates=5", "'toy/seed=3/rl.updates=5' is spelled 'toy/rl.updates=5/seed=3'", "3"),
        ("toy/rl.kl=1.0e-1", "'toy/rl.kl=1.0e-1' is spelled 'toy/rl.kl=0.1'", None),
    ],
)
def test_a_wrong_key_is_told_first_and_its_run_can_be_found(
    tmp_path: Path, instance: dg.DagsterInstance, key: str, says: str, seed: str | None
) -> None:
    result = toy.materialize(tmp_path, instance, [toy.recipe], raise_on_error=False, key=key)
    failure = result.failure_data_for_node("recipe")
    assert failure is not None and failure.user_failure_data is not None and failure.error is not None
    assert str(failure.user_failure_data.description).startswith(says)
    assert says in failure.error.message.splitlines()[0]
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert [run.tags.get(f"e2h/{tag}") for tag in ("experiment", "recipe", "seed")] == [key, "toy", seed]


def test_another_spelling_adds_the_right_one(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    toy.materialize(tmp_path, instance, [toy.recipe], raise_on_error=False, key="toy/seed=3/rl.updates=5")
    right = "toy/rl.updates=5/seed=3"
    assert right in instance.get_dynamic_partitions("experiment")
    assert toy.materialize(tmp_path, instance, [toy.recipe], key=right).success


def test_a_body_reads_only_what_it_declares(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with pytest.raises(dg.Failure, match=r"^this stage reads recipe\.sft") as caught:
        toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_greedy])
    assert isinstance(caught.value.__cause__, RecipeError)


def test_narrowing_hides_the_other_fields_of_a_section() -> None:
    recipe = Recipe.from_key("ladder/problems.seed=7/problems.validation=5")
    view = narrow(recipe, ["problems.seed"])
    assert view.problems.seed == 7
    assert view.problems.validation == Problems().validation
    assert narrow(Recipe.from_key("ladder/problems.seed=7"), ["problems.seed"]).as_dict() == view.as_dict()
    assert narrow(recipe, ["problems"]).problems.validation == 5


def test_a_worker_process_makes_the_same_artifact(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    here = toy.materialize(tmp_path / "here", instance)
    there = toy.materialize(tmp_path / "there", instance, mode="subprocess")
    assert _versions(here) == _versions(there)
    assert toy.computed(there) >= {"toy_policy", "toy_score"}


def test_a_failed_worker_shows_its_last_lines(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with pytest.raises(
        dg.Failure, match="toy_broken: worker ended with status 1: ValueError: the learning rate"
    ) as caught:
        toy.materialize(tmp_path, instance, [toy.recipe, toy.toy_broken], mode="subprocess")
    assert "about to fail" in str(caught.value.metadata["tail"].value)
