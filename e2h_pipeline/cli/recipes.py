"""`e2h recipes`: list the recipes, show one with all its values, or check a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.recipe import Recipe, RecipeError, recipe_names
from e2h_pipeline.recipe.describe import FieldLine, resolved


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show this recipe (or key) with all its values; list all if omitted.")
    ] = None,
    check: Annotated[Path | None, typer.Option(help="Check whether a recipe file can be used.")] = None,
    as_json: Json = False,
) -> None:
    """List the shipped recipes and those in E2H_HOME/recipes, or show one field by field."""
    folders = recipe_folders(home())
    if check is not None:
        recipe: Recipe | None = _checked_file(check, folders)
        typer.echo(f"{check}: can be used; e2h run {check.stem} once it lies in {home() / 'recipes'}")
        name, folders = name or None, [check.parent, *folders]
        if name is None and not as_json:
            return
    else:
        recipe = None if name is None else Recipe.from_key(name, folders)
    if recipe is None:
        _list_all(folders, as_json)
    elif as_json:
        print_json(recipe.model_dump(mode="json"))
    else:
        _show(list(resolved(recipe)))


def _checked_file(path: Path, folders: list[Path]) -> Recipe:
    """The recipe of a file anywhere; the recipe that it extends may be beside it.

    Raises:
        CommandError: the file does not exist or is not called NAME.yaml.
        RecipeError: it cannot be used.
    """
    if not path.is_file():
        raise CommandError(f"{path}: there is no such file")
    if path.suffix != ".yaml":
        raise CommandError(f"{path}: a recipe is a file NAME.yaml, whose name keys begin with")
    return Recipe.from_key(path.stem, [path.parent, *folders])


def _list_all(folders: list[Path], as_json: bool) -> None:
    from e2h_pipeline.cli.view import print_recipes

    found = {name: _description(name, folders) for name in recipe_names(folders)}
    if as_json:
        print_json(found)
    else:
        print_recipes(found)


def _description(name: str, folders: list[Path]) -> str:
    try:
        return Recipe.from_key(name, folders).description
    except RecipeError as error:  # the others are listed all the same
        return f"cannot be used: {error}"


def _show(lines: list[FieldLine]) -> None:
    """A line per field: its value, its default if different, and its meaning."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from e2h_pipeline.cli.view import console

    table = Table("field", "value", "default", "meaning", box=SIMPLE)
    for line in lines:
        style = "bold" if line.changed else ""
        value, default = _shown(line.value), _shown(line.default) if line.changed else ""
        table.add_row(line.name, escape(value), escape(default), escape(line.meaning), style=style)
    console().print(table)


def _shown(value: object) -> str:
    return "unset" if value is None or value == "" else str(value)
