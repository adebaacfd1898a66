"""A recipe file of one's own: what differs from the recipe that it extends, valid by construction."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from e2h_pipeline.recipe.keys import FIELD, RECIPE_FOLDER, RECIPE_NAME
from e2h_pipeline.recipe.layers import override_layer
from e2h_pipeline.recipe.recipe import Recipe
from e2h_pipeline.recipe.section import RecipeError

_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")  # needs no quotes in YAML
_LONGEST_LINE = 110


def new_name(name: str, folders: Sequence[Path]) -> str:
    """A name that a new recipe may have.

    Raises:
        RecipeError: it is no recipe name, or a recipe has it.
    """
    if not RECIPE_NAME.fullmatch(name):
        raise RecipeError(
            f"{name!r} is not a recipe name (lower-case letters, digits, -, _ and dots between them)"
        )
    for folder in [*folders, RECIPE_FOLDER]:
        if (folder / f"{name}.yaml").exists():
            raise RecipeError(f"{folder / name}.yaml is there already; choose another name")
    return name


def draft(
    name: str, parent: str, description: str, fields: Mapping[str, str], folders: Sequence[Path]
) -> str:
    """The text of a recipe file, which has been read as a recipe.

    Args:
        fields: dotted field -> value as in a key; commas make a list.

    Raises:
        RecipeError: it would be no recipe: all that is wrong with it.
    """
    if bad := [field for field in fields if not FIELD.fullmatch(field)]:
        raise RecipeError(*(f"'{field}' is not a field, as rl.kl or seed" for field in bad))
    lines = [f"extends: {parent}", f"description: {_scalar(description)}"]
    for section, value in override_layer(fields, name).items():
        flow = f"{section}: {_flow(value)}"
        block = [f"{section}:", *(f"  {field}: {_flow(inner)}" for field, inner in _items(value))]
        lines += [flow] if len(flow) <= _LONGEST_LINE or not isinstance(value, Mapping) else block
    text = "\n".join(lines) + "\n"
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.yaml").write_text(text, encoding="utf-8")
        try:
            Recipe.from_key(name, [Path(folder), *folders])
        except RecipeError as error:
            own = (f"recipe key '{name}': ", f"{folder}/{name}.yaml: ")
            raise RecipeError(*(_without(str(line), own) for line in error.args)) from None
    return text


def _without(line: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        line = line.removeprefix(prefix)
    return line


def _items(value: Any) -> Sequence[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{field}: {_flow(inner)}" for field, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
