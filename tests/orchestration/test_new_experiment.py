"""The launchpad's job: recipe and overrides in, a partition with the one spelling of its key out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.recipe import recipe
from e2h_pipeline.definitions import build
from e2h_pipeline.orchestration.automation import JOB
from e2h_pipeline.orchestration.new_experiment import NEW_JOB, new_experiment, start_new_experiments
from e2h_pipeline.recipe import one_spelling
from e2h_pipeline.stages.spec import EXPERIMENTS


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("E2H_HOME", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def _launch(instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    given = {"ops": {"add_experiment": {"config": config}}}
    return new_experiment.execute_in_process(given, instance=instance, raise_on_error=False)


def _keys(instance: dg.DagsterInstance) -> list[str]:
    return list(instance.get_dynamic_partitions(str(EXPERIMENTS.name)))


def _started(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> list[str | None]:
    """What the sensor starts when the job has ended."""
    (ended,) = (event for event in result.all_events if event.event_type_value == "PIPELINE_SUCCESS")
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context(
        "start_new_experiments", dagster_event=ended, dagster_instance=instance, dagster_run=run
    )
    found = start_new_experiments()(context)
    return [item.partition_key for item in list(found) if isinstance(item, dg.RunRequest)]  # type: ignore[call-overload]


def test_overrides_of_any_type_become_the_one_spelling_of_a_key_and_a_run_of_it(
    instance: dg.DagsterInstance,
) -> None:
    result = _launch(instance, overrides={"seed": 7, "rl.kl": 0.10, "strict": False, "reward.kind": "orm"})
    key = "ladder/reward.kind=orm/rl.kl=0.1/seed=7/strict=false"
    assert result.success and _keys(instance) == [key]
    assert result.output_for_node("add_experiment") == key
    assert _started(instance, result) == [key]


def test_a_partition_can_be_added_alone(instance: dg.DagsterInstance) -> None:
    result = _launch(instance, recipe="llemma-7b", start=False)
    assert _keys(instance) == ["llemma-7b"] and _started(instance, result) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"overrides": {"sed": 1}}, "did you mean 'seed'?"),
        ({"recipe": "lader"}, "lader"),
        ({"overrides": {"rl.updates": "many"}}, "rl.updates"),
    ],
)
def test_a_wrong_field_is_told_and_adds_nothing(
    instance: dg.DagsterInstance, config: dict[str, Any], says: str
) -> None:
    result = _launch(instance, **config)
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    told = failed.step_failure_data.user_failure_data
    assert told is not None and says in str(told.description) and "\n" not in str(told.description)
    assert _keys(instance) == []


def test_the_examples_that_the_page_shows_are_keys() -> None:
    (spec,) = recipe.specs
    keys = re.findall(r"^- `([^`]+)`", str(spec.description), re.M)
    assert len(keys) == 3 and all(one_spelling(key) == key for key in keys)
    definitions = build()
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {JOB, NEW_JOB}
