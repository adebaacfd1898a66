"""The recipe as an asset, so that Dagster sees a changed knob as changed data.

Its values are in its key, so an edit of a recipe's file makes it stale in every process. The sensor
`watch_recipes` (e2h_pipeline/orchestration/automation.py) then makes it again.
"""

from __future__ import annotations

import json
from typing import Any

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import Recipe
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.stages.spec import RECIPE_FILE


@stage(group="data", recipe=Recipe.model_fields, kinds={"json"})
def recipe(job: StageJob) -> dict[str, Any]:
    """All knobs of the experiment, parsed from its key, which is the name of its partition.

    A key is a recipe's name, and overrides of its fields in alphabetical order, each after a slash:

    - `ladder`: the recipe as it is
    - `ladder/seed=7`: with another seed
    - `ladder/reward.kind=orm/rl.updates=50/seed=1`: with three fields changed

    docs/recipes.md names all recipes' fields, `e2h recipes` all recipes. The job `new_experiment` in the
    launchpad takes recipe and overrides one by one, and writes the key."""
    values = job.recipe.as_dict()
    (job.out / RECIPE_FILE).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"name": values["name"], "strict": values["strict"], "seed": values["seed"]}
