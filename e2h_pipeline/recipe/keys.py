"""TODO: docstring."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from e2h_pipeline.recipe.section import RecipeError

RECIPE_FOLDER = Path(__file__).parents[1] / "recipes"
DEFAULT_KEY = "ladder"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_OVERRIDE = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)=([A-Za-z0-9_.,+-]{1,60})")
_MAX_KEY_LENGTH = 200


def canonical_key(key: str) -> str:
    """The one spelling of a key: overrides sorted by field, values as YAML would print them.

    Raises:
        RecipeError: the key is not well formed.
    """
    name, overrides = split_key(key)
    return "/".join([name, *(f"{field}={value}" for field, value in sorted(overrides.items()))])


def recipe_names(folders: Iterable[Path] = ()) -> list[str]:
    """Names of all recipes that can be found."""
    return sorted({path.stem for folder in [*folders, RECIPE_FOLDER] for path in Path(folder).glob("*.yaml")})


def split_key(key: str) -> tuple[str, dict[str, str]]:
    if len(key) > _MAX_KEY_LENGTH:
        raise RecipeError(f"recipe key is longer than {_MAX_KEY_LENGTH} characters")
    name, *parts = key.split("/")
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{name!r} is not a recipe name (lower-case letters, digits, - and _)")
    overrides: dict[str, str] = {}
    for part in parts:
        match = _OVERRIDE.fullmatch(part)
        if not match:
            raise RecipeError(f"{part!r} in key {key!r} is not of the form section.field=value")
        if match[1] in overrides:
            raise RecipeError(f"field {match[1]} is given twice in key '{key}'")
        overrides[match[1]] = match[2]
    return name, overrides


def load_recipe_data(name: str, folders: list[Path], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The data of a recipe file, laid over the recipe it `extends` where it names one."""
    path = next((p for folder in folders if (p := Path(folder) / f"{name}.yaml").is_file()), None)
    if path is None:
        raise RecipeError(f"no recipe '{name}'; there are: {', '.join(recipe_names(folders))}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not a {type(data).__name__}")
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if parent in (*above, name) or not isinstance(parent, str) or not _NAME.fullmatch(parent):
        raise RecipeError(f"{path}: extends: {parent} is not another recipe's name")
    return _laid_over(load_recipe_data(parent, folders, (*above, name)), data)


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `above` win; sections present in both are merged field by field."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def parse_value(text: str) -> Any:
    if "," in text:
        return [parse_value(item) for item in text.split(",") if item]
    try:  # YAML reads 2e-5 as a string
        return float(text) if re.fullmatch(r"[0-9.]+e[+-]?[0-9]+", text) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def set_override(data: dict[str, Any], field: str, value: Any, key: str) -> None:
    *parents, leaf = field.split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, Mapping):
            raise RecipeError(f"{field} in key '{key}': {parent} is not a section")
        node = child  # type: ignore[assignment]
    node[leaf] = value


def explain_validation(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    mend = " (no such field)" if first["type"] == "extra_forbidden" else ""
    return f"{where}: {first['msg']}{mend}" if where else str(first["msg"])
