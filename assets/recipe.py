"""The recipe as an asset: what makes a changed knob visible to Dagster as changed data."""

from __future__ import annotations

import json
from typing import Any

from assets._stage import RECIPE_FILE, stage
from e2h_pipeline.artifacts.hashing import byte_hash, digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe


def _recipe_files() -> str:
    """Hash of all recipe files and of the defaults in recipe.py: an edit of one is a code change here."""
    files = [
        path for folder in [*recipe_folders(home()), RECIPE_FOLDER] for path in sorted(folder.glob("*.yaml"))
    ]
    return digest_json([byte_hash(path) for path in [*files, RECIPE_FOLDER.parent / "recipe.py"]])[:16]


@stage(group="data", recipe=Recipe.model_fields, kinds={"json"}, version_suffix=f"-{_recipe_files()}")
def recipe(job: StageJob) -> dict[str, Any]:
    """All knobs of the experiment, parsed from its key."""
    values = job.recipe.as_dict()
    (job.out / RECIPE_FILE).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"name": values["name"], "strict": values["strict"], "seed": values["seed"]}
