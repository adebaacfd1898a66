"""Keys: a recipe's name and its overrides, `ladder/rl.updates=50/seed=1`. They become paths and
tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from e2h_pipeline.recipe.section import RecipeError
from e2h_pipeline.recipe.yaml_files import yaml_files

RECIPE_FOLDER = Path(__file__).parents[1] / "recipes"
DEFAULT_KEY = "ladder"
RECIPE_NAME = re.compile(r"(?=.{1,41}\Z)[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*")  # single dots inside: qwen2.5
FIELD = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9][a-z0-9_]*)*")
_OVERRIDE = re.compile(rf"({FIELD.pattern})=([A-Za-z0-9_.,+-]{{1,60}})")
_MAX_KEY_LENGTH = 200


def canonical_key(key: str) -> str:
    """A key with its overrides sorted by field; `recipe.one_spelling` also spells their values.

    Raises:
        RecipeError: the key is not well formed.
    """
    return joined_key(*split_key(key))


def joined_key(name: str, overrides: Mapping[str, str]) -> str:
    """The key of a recipe's name and overrides, sorted by field."""
    return "/".join([name, *(f"{field}={value}" for field, value in sorted(overrides.items()))])


def ceiling_key(key: str, ceiling: str) -> str:
    """The key of an experiment's ceiling: another recipe with the same overrides.

    Args:
        ceiling: the recipe's name, of `evaluation.ceiling`.
    """
    _, overrides = split_key(key)
    return joined_key(ceiling, {n: v for n, v in overrides.items() if n != "evaluation.ceiling"})


def recipe_names(folders: Iterable[Path] = ()) -> list[str]:
    """Names of all recipes that can be found."""
    return sorted({path.stem for path in yaml_files([*folders, RECIPE_FOLDER])})


def split_key(key: str) -> tuple[str, dict[str, str]]:
    if len(key) > _MAX_KEY_LENGTH:
        raise RecipeError(f"recipe key is longer than {_MAX_KEY_LENGTH} characters")
    name, *parts = key.split("/")
    if not RECIPE_NAME.fullmatch(name):
        raise RecipeError(
            f"{name!r} is not a recipe name (lower-case letters, digits, -, _ and dots between them)"
        )
    overrides: dict[str, str] = {}
    for part in parts:
        match = _OVERRIDE.fullmatch(part)
        if not match:
            raise RecipeError(f"{part!r} in key {key!r} is not of the form section.field=value")
        if match[1] in overrides:
            raise RecipeError(f"field {match[1]} is given twice in key {key!r}")
        overrides[match[1]] = match[2]
    return name, overrides
