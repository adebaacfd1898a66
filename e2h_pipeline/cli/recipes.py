"""`e2h recipes`: list the recipes, show one with all its values, or check files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe, RecipeError, recipe_names, sources_of
from e2h_pipeline.recipe.describe import FieldLine, resolved


def recipes(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Show this recipe (or key) with all its values; list all if omitted. With --check, files or names."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Report all errors of these files, or of all in E2H_HOME/recipes; status 1 if any.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the shipped recipes and those in E2H_HOME/recipes, show one field by field, or check files."""
    folders = recipe_folders(home())
    if check:
        _check(names or [], folders, as_json)
    elif not names:
        _list_all(folders, as_json)
    else:
        for name in names:
            recipe = Recipe.from_key(name, folders)
            if as_json:
                print_json(recipe.model_dump(mode="json"))
            else:
                _show(list(resolved(recipe, sources_of(name, folders))))


def _check(names: list[str], folders: list[Path], as_json: bool) -> None:
    """Tell each file's errors, one a line.

    Raises:
        CommandError: there are errors.
    """
    paths = [_file(name, folders) for name in names] or _files(folders)
    errors = {str(path): _errors(path, folders) for path in paths}
    if as_json:
        print_json(errors)
    for path, found in errors.items() if not as_json else ():
        typer.echo(f"{path}: {'cannot be used' if found else 'can be used; e2h run ' + Path(path).stem}")
        for error in found:
            typer.echo(f"  {error}")
    if not paths and not as_json:
        typer.echo(f"no recipe file in {folders[0]}; e2h init writes one")
    if bad := [path for path, found in errors.items() if found]:
        raise CommandError(f"{len(bad)} of {len(paths)} recipe files cannot be used, the first is {bad[0]}")


def _file(name: str, folders: list[Path]) -> Path:
    """The file of a name: a path, or a recipe's name.

    Raises:
        CommandError: there is none.
    """
    found = [Path(name), *(folder / f"{name}.yaml" for folder in [*folders, RECIPE_FOLDER])]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise CommandError(f"{name}: there is no such file, and no recipe of that name")
    return path


def _files(folders: list[Path]) -> list[Path]:
    """Whatever somebody may have meant as a recipe."""
    return [path for folder in folders for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])]


def _errors(path: Path, folders: list[Path]) -> list[str]:
    """What is wrong with a recipe file anywhere; the recipe that it extends may be beside it."""
    if path.suffix != ".yaml":
        return ["a recipe is a file NAME.yaml, whose name keys begin with"]
    try:
        Recipe.from_key(path.stem, [path.parent, *folders])
    except RecipeError as error:
        return [str(one).removeprefix(f"recipe key '{path.stem}': ") for one in error.args]
    return []


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
        more = f" (and {len(error.args) - 1} more: e2h recipes --check)" if len(error.args) > 1 else ""
        return f"cannot be used: {error.args[0]}{more}"


def _show(lines: list[FieldLine]) -> None:
    """A line per field: its value, where it comes from, its default if different, and its meaning."""
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from e2h_pipeline.cli.view import console

    table = Table("field", "value", "from", "default", "meaning", box=SIMPLE)
    for line in lines:
        style = "bold" if line.changed else ""
        value, default = _shown(line.value), _shown(line.default) if line.changed else ""
        table.add_row(
            line.name,
            escape(value),
            escape(_source(line)),
            escape(default),
            escape(line.meaning),
            style=style,
        )
    console().print(table)


def _source(line: FieldLine) -> str:
    """The file that sets a field, or `key`; empty for a default."""
    if not line.source:
        return "other fields" if line.changed and line.default != "required" else ""
    path = Path(line.source)
    if path.suffix != ".yaml":
        return "key"
    return f"{path.name} (shipped)" if path.parent == RECIPE_FOLDER else path.name


def _shown(value: object) -> str:
    return "unset" if value is None or value == "" else str(value)
