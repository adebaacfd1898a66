"""`e2h export` and `e2h import`: an experiment as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.cli.shared import AllowLeaks, Json, known_key, opened_experiments, print_json, refuse_leaks


def export(
    key: Annotated[str, typer.Argument(help="Recipe key.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave the files of an asset out; several times. Its manifest stays."),
    ] = None,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Write an experiment into a folder: artifacts, manifests, numbers, lineage, report, checksums."""
    from e2h_pipeline.operations.export import export as write

    with opened_experiments() as experiments:
        key = known_key(experiments, key)
        made = write(experiments, key, folder, without or ())
        leaks = experiments.standing(key).leaks
    typer.echo(f"{folder}: {len(made)} artifacts of {key}")
    refuse_leaks(leaks, allow_leaks)


def import_(
    folder: Annotated[Path, typer.Argument(help="A folder that e2h export wrote.")], as_json: Json = False
) -> None:
    """Check such a folder, and put its artifacts into the store; a run of the same code reuses them."""
    from e2h_pipeline.artifacts.exchange import read_bundle
    from e2h_pipeline.artifacts.store import ArtifactStore

    found = read_bundle(ArtifactStore(home()), folder)
    if as_json:
        print_json(vars(found))
        return
    parts = (
        ("added", found.added),
        ("there already", found.there),
        ("left out of the folder", found.left_out),
    )
    typer.echo("; ".join(f"{len(names)} {what}" for what, names in parts if names))
