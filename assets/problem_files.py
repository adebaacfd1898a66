"""The files, or commits of the Hub, that problems come from: what Dagster watches and never makes.

An external asset in the graph, whose versions the sensor `watch_problem_files` reports (e2h_pipeline/freshness.py). It
is no `observable_source_asset`: that one looks in a run, each time, and can tell versions of partitions but nothing
about them; a sensor reports a version with its reasons, and only when it is new.
"""

# No `from __future__ import annotations`: Dagster wants the real type of `context`.

from collections.abc import Mapping, Sequence

import dagster as dg

from assets._stage import EXPERIMENTS, OWNERS, narrow
from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.problems.source import look_at_source
from e2h_pipeline.recipe import Problems, Recipe, RecipeError
from resources.store import StoreResource

PROBLEM_FILES = "problem_files"
READABLE = "source_readable"
# What the source is, not which of its problems an experiment draws: those fields are left out.
SOURCE_FIELDS = ("source", "world", "train_per_level", "path", "hub", "hub_revision", "strict_counts")

problem_files = dg.AssetSpec(
    PROBLEM_FILES,
    partitions_def=EXPERIMENTS,
    group_name="data",
    kinds={"file"},
    owners=OWNERS,
    tags={"e2h/supervision": "source", "e2h/device": "cpu"},
    description=(
        "The files of `problems.path` or `E2H_DATA_DIR/math`, or the commits of `problems.hub`, that an experiment's "
        "problems come from. Looked at every minute; its latest event says which file changed. Times do not "
        "count, content does.\n\nVersion = hash of the content. Recipe: "
        + ", ".join(f"`problems.{field}`" for field in SOURCE_FIELDS)
        + "."
    ),
)


def source_options(recipe: Recipe) -> Problems:
    """The part of a recipe that says what its source is; equal for all experiments that share one."""
    options: Problems = narrow(recipe, [f"problems.{field}" for field in SOURCE_FIELDS]).problems
    return options


def readable_result(errors: Mapping[str, Sequence[str]]) -> dg.AssetCheckResult:
    """The check's result.

    Args:
        errors: why a source cannot be read -> the experiments that have it.
    """
    findings = [f"{error} ({', '.join(keys)})" for error, keys in errors.items()]
    listed = "\n".join(f"- {finding}" for finding in findings) or "nothing"
    return dg.AssetCheckResult(
        passed=not errors,
        description=f"{findings[0]}; nothing is made again of what cannot be read" if findings else None,
        metadata={
            "findings": dg.MetadataValue.md(listed),
            "experiments_stopped": sum(map(len, errors.values())),
        },
    )


@dg.asset_check(asset=PROBLEM_FILES, name=READABLE)
def source_readable(context: dg.AssetCheckExecutionContext, store: StoreResource) -> dg.AssetCheckResult:
    """The data of every experiment is there, and every record of it can be read."""
    errors: dict[str, list[str]] = {}
    for key in context.instance.get_dynamic_partitions(str(EXPERIMENTS.name)):
        try:
            recipe = Recipe.from_key(key, recipe_folders(store.home_folder))
        except RecipeError:
            continue  # an old experiment, whose recipe is no longer there
        if error := look_at_source(source_options(recipe)).error:
            errors.setdefault(error, []).append(key)
    return readable_result(errors)
