"""A job for the launchpad: a new experiment from a recipe's name and its overrides, with no key to spell.

Its step adds the partition under the key's one spelling. A sensor then starts the run of the whole
experiment, since a step cannot start another run.
"""

# No `from __future__ import annotations`: Dagster wants the real types of `context` and `config`.

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.orchestration.automation import experiment_job
from e2h_pipeline.orchestration.planning import add_experiments
from e2h_pipeline.recipe import Recipe, one_spelling
from e2h_pipeline.recipe.keys import DEFAULT_KEY, joined_key
from e2h_pipeline.stages.asset import cause_first
from e2h_pipeline.stages.spec import EXPERIMENT_TAG

NEW_JOB = "new_experiment"
_ADDED_TAG = "e2h/added"
_SECONDS = 30


class NewExperiment(dg.Config):
    """Recipe and overrides of an experiment."""

    recipe: str = Field(
        default=DEFAULT_KEY,
        description="Name of a recipe: of a file in E2H_HOME/recipes, or shipped (docs/recipes.md).",
    )
    overrides: dict[str, Any] = Field(
        default={},
        description="Fields of the recipe and their values, such as {seed: 7, rl.updates: 50}. docs/recipes.md has all.",
    )
    start: bool = Field(
        default=True, description="Also run the whole experiment; false only adds its partition."
    )

    def key(self) -> str:
        """The experiment's key in its one spelling.

        Raises:
            RecipeError: it names no recipe, or a field or value is wrong; the message says which.
        """
        folders = recipe_folders(home())
        spelled = joined_key(self.recipe, {field: _text(value) for field, value in self.overrides.items()})
        Recipe.from_key(spelled, folders)
        return one_spelling(spelled, folders)


def _text(value: Any) -> str:
    """A value as keys write it: YAML's `true` and lists too."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@dg.op
def add_experiment(context: dg.OpExecutionContext, config: NewExperiment) -> str:
    """Adds the experiment's partition and returns its key."""
    with cause_first():
        key = config.key()
    add_experiments(context.instance, [key])
    context.instance.add_run_tags(
        context.run_id, {_ADDED_TAG: key} if config.start else {EXPERIMENT_TAG: key}
    )
    context.log.info("experiment %s is %s", key, "added and will be started" if config.start else "added")
    return key


@dg.job(
    name=NEW_JOB,
    description="Add an experiment and start it: pick a recipe and overrides in the launchpad. The key of its partition "
    "is written for you.",
)
def new_experiment() -> None:
    """One step."""
    add_experiment()


def start_new_experiments() -> dg.SensorDefinition:
    """Starts the experiments that the job has added. On by default."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="start_new_experiments",
        monitored_jobs=[new_experiment],
        request_job=experiment_job(),
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts what `{NEW_JOB}` has added.",
    )
    def sensor_(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        key = context.dagster_run.tags.get(_ADDED_TAG)
        if key is None:
            yield dg.SkipReason("only the partition was asked for")
        else:
            yield dg.RunRequest(run_key=context.dagster_run.run_id, partition_key=key)

    return sensor_
