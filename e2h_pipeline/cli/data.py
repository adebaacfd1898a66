"""`e2h data`: the files of other people that recipes can read, and models that shipped recipes name."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.problems.catalogue import CATALOGUE, state_of_file
from e2h_pipeline.recipe import RECIPE_FOLDER, Recipe, recipe_names
from e2h_pipeline.recipe.section import did_you_mean

data = typer.Typer(
    invoke_without_command=True, help="Files of others that recipes can read; `get` fetches them."
)

_LICENCES = {
    "EleutherAI/llemma_7b": "Llama 2",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "Apache-2.0",
    "Qwen/Qwen2.5-1.5B": "Apache-2.0",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": "Apache-2.0",
}
_STYLES = {"here": "green", "unverified": "yellow", "differs": "red", "missing": "dim"}
_TENTHS = 10


@dataclass(frozen=True)
class _Row:
    name: str
    purpose: str
    published: str
    licence: str
    fetched: bool
    files: dict[str, str]
    """Place -> state."""


@data.callback()
def list_data(context: typer.Context, as_json: Json = False) -> None:
    """Files of others that recipes can read: what for, where published, licence, and whether they are here."""
    if context.invoked_subcommand:
        return
    rows = [*_data_rows(), *_model_rows()]
    if as_json:
        print_json([vars(row) for row in rows])
        return
    _show(rows)


@data.command("get")
def get(
    names: Annotated[list[str], typer.Argument(help="Names in `e2h data`.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder; E2H_DATA_DIR where omitted, else E2H_HOME/data.")
    ] = None,
) -> None:
    """Fetch data sets and models. What was begun is gone on with; hashes are checked."""
    models = {row.name: revision for row, revision in _models()}
    for name in names:
        if name not in CATALOGUE and name not in models:
            known = [*CATALOGUE, *models]
            raise CommandError(f"no '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    from e2h_pipeline.operations.fetching import FetchError, fetch_data

    folder = (to or _folder() or home() / "data").expanduser().resolve()
    for name in names:
        try:
            if name in CATALOGUE:
                for file in fetch_data(CATALOGUE[name], folder, _Progress()):
                    typer.echo(file)
            else:
                typer.echo(_get_model(name, models[name]))
        except FetchError as error:
            raise CommandError(str(error)) from None
    if folder != _folder() and any(name in CATALOGUE for name in names):
        typer.echo(f"recipes find it with: export E2H_DATA_DIR={folder}")


def _folder() -> Path | None:
    named = os.environ.get("E2H_DATA_DIR")
    return Path(named).expanduser().resolve() if named else None


def _data_rows() -> list[_Row]:
    rows = []
    for one in CATALOGUE.values():
        folder = _folder()
        states = {
            place: state_of_file(folder / place, source)[0] if folder else "missing"
            for place, source in one.files.items()
        }
        rows.append(_Row(one.name, one.purpose, one.published, one.licence, one.fetched, dict(states)))
    return rows


def _model_rows() -> list[_Row]:
    return [row for row, _ in _models()]


def _models() -> list[tuple[_Row, str | None]]:
    """Models on the Hub that shipped recipes name, with the commit that they name."""
    from e2h_pipeline.models.hub import cached, hub_name

    named: dict[tuple[str, str | None], list[str]] = {}
    for name in recipe_names():
        base = Recipe.from_key(name, [RECIPE_FOLDER]).base
        if hub_name(base):
            named.setdefault((base.model, base.revision), []).append(name)
    rows: dict[str, tuple[_Row, str | None]] = {}
    for (model, revision), recipes in named.items():
        state = "here" if cached(model, revision) else "missing"
        purpose = f"base.model of {recipes[0]}" + (
            f" and {len(recipes) - 1} more" if len(recipes) > 1 else ""
        )
        row = _Row(
            model,
            purpose,
            f"huggingface.co/{model}",
            _LICENCES.get(model, "see its page"),
            True,
            {"cache": state},
        )
        rows.setdefault(model, (row, revision))
    return list(rows.values())


def _get_model(name: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    from e2h_pipeline.operations.fetching import FetchError

    try:
        return str(
            snapshot_download(name, revision=revision, ignore_patterns=["*.bin", "*.pth", "original/*"])
        )
    except (HTTPError, OSError, ValueError) as error:
        raise FetchError(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}") from None


class _Progress:
    """Tells each tenth of a file on stderr."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def __call__(self, name: str, done: int, size: int) -> None:
        tenth = _TENTHS * done // size if size else done >> 26
        if self._told.get(name) != tenth:
            self._told[name] = tenth
            of = f" of {size / 1e6:.1f}" if size else ""
            typer.echo(f"{name}: {done / 1e6:.1f}{of} MB", err=True)


def _show(rows: list[_Row]) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from e2h_pipeline.cli.view import console

    table = Table(box=SIMPLE)
    for column in ("name", "what for", "where published", "licence", "files"):
        table.add_column(column, overflow="fold")  # to be copied
    for row in rows:
        files: list[Any] = [
            f"[{_STYLES[state]}]{state}[/{_STYLES[state]}] {escape(place)}"
            for place, state in row.files.items()
        ]
        name = escape(row.name) + ("" if row.fetched else "\n[dim](by hand)[/dim]")
        table.add_row(name, escape(row.purpose), escape(row.published), row.licence, "\n".join(files))
    console().print(table)
    folder = _folder()
    typer.echo(f"E2H_DATA_DIR: {folder or 'not set'}; e2h data get NAME fetches what has no (by hand)")


if __name__ == "__main__":
    sys.exit("run: e2h data")
