"""How a key that somebody typed is spelled among the experiments of a home."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from e2h_pipeline.artifacts.home import recipe_folders
from e2h_pipeline.recipe import Recipe, canonical_key, one_spelling


def known_key(known: Collection[str], key: str, home: Path) -> str:
    """The spelling of a key with results (of any version), or of a valid recipe.

    Args:
        known: the experiments of the home.

    Raises:
        RecipeError: it is neither.
    """
    key, folders = canonical_key(key), recipe_folders(home)
    if key in known:
        return key
    Recipe.from_key(key, folders)
    return one_spelling(key, folders)
