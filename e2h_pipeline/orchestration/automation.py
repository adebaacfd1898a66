"""The automation that updates stages, and the job that runs a whole experiment.

One condition for every asset. It fires when the content of an upstream or the stage's own code
changes, and stays quiet when an upstream was made again with equal content. So a change goes
exactly as far as it matters. `eager()` would ignore data versions; `since_last_handled()` would
lose an update that arrives during a long training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import dagster as dg

from assets.watched import WATCHED
from e2h_pipeline.artifacts.hashing import byte_hash_or_error, digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.planning import (
    changed_recipes,
)
from e2h_pipeline.recipe import RECIPE_FOLDER, RecipeError
from e2h_pipeline.recipe.describe import recipes_page
from e2h_pipeline.recipe.layers import recipe_layers
from e2h_pipeline.recipe.yaml_files import yaml_files
from e2h_pipeline.stages.spec import EXPERIMENTS, RECIPE_ASSET

JOB = "experiment"
_SENSOR_SECONDS = 30
_SMALL = 2000  # experiments; Dagster then spends a second or two of processor time on a quiet tick
_COMPARED = 1000  # recipes of one tick
_SHOWN = 200


def on_change(retried: bool = True) -> dg.AutomationCondition:
    """Fires on changed content upstream, on changed code, and, where it is worth another try, once after a
    failure.

    It waits while an upstream is missing, running, or fails a blocking check. It also waits while
    the recipe is about to be made: every stage reads it, so an edit of code and knobs together
    causes one run, not two.

    Only assets that already exist, or are being made, are updated. A stage outside a sweep's
    `select`, or a partition that was only added, is not made by itself. So the first version of an
    upstream is not a change. Of data files, `watch_files` reports the first version as an observation,
    which is no version to a condition: so each one seen here is a change, and none yet is no gap."""
    condition = dg.AutomationCondition
    first_made = (~condition.missing()).newly_true()
    watched = dg.AssetSelection.assets(*(watched.name for watched in WATCHED))
    changed = (
        condition.any_deps_match(condition.data_version_changed() & ~first_made)
        | condition.any_deps_match(condition.data_version_changed()).allow(watched)
        | condition.code_version_changed()
    ) & (~condition.missing() | condition.in_progress())
    due = changed.since(condition.newly_requested() | condition.initial_evaluation())
    return (
        (due | condition.execution_failed().newly_true() if retried else due)
        & ~condition.any_deps_missing().ignore(watched)
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & ~condition.any_deps_match(condition.will_be_requested()).allow(
            dg.AssetSelection.assets(RECIPE_ASSET)
        )
        & condition.all_deps_blocking_checks_passed()
    ).with_label("on_change")


def automated(assets: Iterable[object]) -> list[dg.AssetsDefinition]:
    """The loaded assets, each with the shared condition; `recipe` without another try: a key that cannot
    be read stays wrong, and an edit of its file is seen by `watch_recipes`."""
    recipe = dg.AssetKey(RECIPE_ASSET)
    return [
        asset.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=on_change(retried=spec.key != recipe))
        )
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition)
    ]


def sensor(experiments: int = 0) -> dg.AutomationConditionSensorDefinition:
    """Evaluates the condition while the daemon runs. On by default; pause it in the UI.

    Args:
        experiments: known when the code is loaded. Each tick costs Dagster time in proportion, also
            where nothing has changed, so ticks of large homes are rarer.
    """
    return dg.AutomationConditionSensorDefinition(
        "re_make_what_changed",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_SENSOR_SECONDS * max(1, -(-experiments // _SMALL)),
        description="Re-makes what a changed recipe, easy split or code makes stale, per experiment.",
    )


def watch_recipes() -> dg.SensorDefinition:
    """Makes `recipe` again when its files were edited; its dependents follow by `on_change`.

    Edits from before the first look are ignored, as by the condition."""

    @dg.sensor(
        name="watch_recipes",
        job_name=JOB,
        minimum_interval_seconds=_SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the recipes of experiments again after an edit of their files; dependents follow.",
    )
    def sensor_(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = _recipe_files()
        seen = RecipesSeen.read(context.cursor, now)
        changed: list[str] = []
        if seen.files != now or seen.left:
            keys = context.instance.get_dynamic_partitions(str(EXPERIMENTS.name))
            seen = seen.after_edit(now, keys, recipe_folders(home())) if seen.files != now else seen
            changed = changed_recipes(context.instance, ArtifactStore(home()), seen.due(keys))
            seen = seen.after_due(keys)
        context.update_cursor(json.dumps(asdict(seen)))
        if not changed:
            yield dg.SkipReason("no recipe has changed")
        for key in changed:
            yield dg.RunRequest(partition_key=key, asset_selection=[dg.AssetKey(RECIPE_ASSET)])

    return sensor_


@dataclass(frozen=True)
class RecipesSeen:
    """What `watch_recipes` knows, its cursor: thousands of experiments share a recipe's files, and
    those of an edited one are worked through some in each tick.

    Attributes:
        files: hash of all recipe files.
        recipes: recipe name -> digest of what its files say, at the last edit of any.
        left: names of edited recipes whose experiments are not all compared yet.
        after: the last experiment that was compared; experiments are taken in order of their keys.
    """

    files: str
    recipes: Mapping[str, str] = field(default_factory=dict)
    left: Sequence[str] = ()
    after: str = ""

    @classmethod
    def read(cls, cursor: str | None, now: str) -> RecipesSeen:
        """The cursor; of an earlier version or a first look, one that knows no recipe."""
        try:
            return cls(now) if cursor is None else cls(**json.loads(cursor))
        except (ValueError, TypeError):
            return cls("")

    def after_edit(self, now: str, keys: Iterable[str], folders: Sequence[Path]) -> RecipesSeen:
        """With the recipes that say something else than before, or were not known."""
        recipes = {name: _said(name, folders) for name in {key.partition("/")[0] for key in keys}}
        edited = {name for name, said in recipes.items() if self.recipes.get(name) != said}
        return RecipesSeen(now, recipes, sorted(edited | set(self.left)))

    def due(self, keys: Iterable[str]) -> list[str]:
        """The experiments to compare in this tick."""
        names = set(self.left)
        return sorted(key for key in keys if key.partition("/")[0] in names and key > self.after)[:_COMPARED]

    def after_due(self, keys: Iterable[str]) -> RecipesSeen:
        """When those are compared."""
        due = self.due(keys)
        if len(due) < _COMPARED:
            return replace(self, left=(), after="")
        return replace(self, after=due[-1])


def _said(name: str, folders: Sequence[Path]) -> str:
    """Digest of a recipe's files and defaults. Why it cannot be read, where it cannot: mended, it differs."""
    try:
        return digest_json([recipe_layers(name, [*folders, RECIPE_FOLDER]), recipes_page()])
    except RecipeError as error:
        return str(error)[:_SHOWN]


def _recipe_files() -> str:
    """Hash of all recipe files and of this process's defaults; edited defaults need a reload."""
    files = yaml_files([*recipe_folders(home()), RECIPE_FOLDER])
    return digest_json([[str(path), byte_hash_or_error(path)] for path in files] + [recipes_page()])


@cache
def experiment_job() -> dg.UnresolvedAssetJobDefinition:
    """All stages and checks of one experiment; what is in the store is reused. One object: Dagster takes
    two for two jobs of a name."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.all(),
        description="Materialize a whole experiment; pick its key as the partition.",
    )
