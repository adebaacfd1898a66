"""`e2h init`: write a recipe of one's own; asks on a terminal, takes arguments elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError
from e2h_pipeline.recipe import DEFAULT_KEY, FAMILIES, Recipe, RecipeError, recipe_names
from e2h_pipeline.recipe.describe import resolved
from e2h_pipeline.recipe.draft import draft, new_name


@dataclass(frozen=True)
class _Question:
    """A question about a field.

    Attributes:
        family: section of methods whose words are the answers; "" for free text.
    """

    field: str
    text: str
    family: str = ""


_QUESTIONS = (
    _Question("problems.source", "Problems", "problems"),
    _Question("base.model", "Base model: shipped, on the Hub, or a folder"),
    _Question("labels.source", "Who labels the easy steps", "labels"),
    _Question("reward.kind", "Kind of evaluator", "reward"),
    _Question("rl.algorithm", "Reinforcement learning", "rl"),
)


def init(
    name: Annotated[str, typer.Argument(help="Name of the recipe; keys begin with it.")] = "",
    fields: Annotated[
        list[str] | None, typer.Argument(help="Its fields, as rl.updates=80 base.model=Qwen/Qwen2.5-0.5B")
    ] = None,
    parent: Annotated[
        str, typer.Option("--from", help="The recipe that it extends; of a name or file in `e2h recipes`.")
    ] = "",
    description: Annotated[str, typer.Option(help="One sentence for people.")] = "",
    ask: Annotated[bool, typer.Option(help="Ask for what is not given; only on a terminal.")] = True,
) -> None:
    """Write a recipe of your own into E2H_HOME/recipes: what differs from the one that it extends."""
    folders = recipe_folders(home())
    asks = ask and sys.stdin.isatty() and sys.stdout.isatty()
    if not name and not asks:
        raise CommandError("give the name of the recipe: e2h init NAME [field=value ...]")
    name = new_name(name, folders) if name else _asked("Name", "mine", lambda text: new_name(text, folders))
    if not parent and asks:
        parent = _asked("Extends", DEFAULT_KEY, lambda text: _known(text, folders), recipe_names(folders))
    parent = _known(parent or DEFAULT_KEY, folders)
    chosen = _given(fields or [])
    about = description or f"{parent}, changed."

    def text() -> str:
        return draft(name, parent, about, chosen, folders)

    if asks:
        about = description or _asked("Description", about, str)
        _ask_fields(parent, chosen, text, folders)
    target = _write(folders[0] / f"{name}.yaml", text())
    typer.echo(f"{target}\nwhat it would do: e2h run {name} --dry-run\nall its fields:   e2h recipes {name}")


def _given(fields: Sequence[str]) -> dict[str, str]:
    """Field -> value of arguments.

    Raises:
        CommandError: one is not of that form, or given twice.
    """
    found: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals or not value:
            raise CommandError(f"'{field}' is not of the form section.field=value")
        if name in found:
            raise CommandError(f"{name} is given twice")
        found[name] = value
    return found


def _known(name: str, folders: Sequence[Path]) -> str:
    Recipe.from_key(name, folders)
    if "/" in name:
        raise RecipeError(f"'{name}' is a key; a recipe extends another recipe's name")
    return name


def _ask_fields(
    parent: str, chosen: dict[str, str], text: Callable[[], str], folders: Sequence[Path]
) -> None:
    """Ask for the fields that are not given, and take an answer only if the recipe is one with it."""
    values = {line.name: str(line.value) for line in resolved(Recipe.from_key(parent, folders))}
    for question in _QUESTIONS:
        field, default = question.field, values.get(question.field)
        if field in chosen or default is None:  # several label sources: no single one to change
            continue

        def take(answer: str, field: str = field, default: str = default) -> str:
            if answer != default:
                chosen[field] = answer
                try:
                    text()
                except RecipeError:
                    del chosen[field]
                    raise
            return answer

        _asked(question.text, default, take, FAMILIES[question.family].words() if question.family else ())


def _asked(question: str, default: str, take: Callable[[str], str], choices: Sequence[str] = ()) -> str:
    """Ask until the answer can be taken."""
    if choices:
        typer.echo(f"  {', '.join(choices)}")
    while True:
        answer = str(typer.prompt(question, default=default)).strip()
        try:
            return take(answer)
        except RecipeError as error:
            for line in error.args:
                typer.echo(f"  {line}")


def _write(target: Path, text: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:  # never over another's
        file.write(text)
    return target
