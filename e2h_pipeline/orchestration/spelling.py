"""How a key that somebody typed is spelled among the experiments of a home."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.recipe import Recipe, canonical_key, one_spelling
from e2h_pipeline.stages.spec import EXPERIMENTS


def known_key(instance: dg.DagsterInstance, key: str, home: Path) -> str:
    """The spelling of a key with results (of any version), or of a valid recipe.

    Raises:
        RecipeError: it is neither.
    """
    key, folders = canonical_key(key), recipe_folders(home)
    if key in instance.get_dynamic_partitions(str(EXPERIMENTS.name)):
        return key
    Recipe.from_key(key, folders)
    return one_spelling(key, folders)
