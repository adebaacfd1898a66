"""`e2h export` and `e2h import`: an experiment as a folder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.cli.shared import (
    AllowLeaks,
    CommandError,
    Json,
    known_key,
    opened_experiments,
    print_json,
    refuse_leaks,
)

if TYPE_CHECKING:
    from e2h_pipeline.orchestration.experiments import Experiments


def export(
    key: Annotated[str, typer.Argument(help="Recipe key.")],
    folder: Annotated[Path | None, typer.Argument(help="A new folder; may be left out with --hub.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave the files of an asset out; several times. Its manifest stays."),
    ] = None,
    hub: Annotated[
        str,
        typer.Option(help="Push it to this data set of the Hub, OWNER/NAME; the login is that of HF_TOKEN."),
    ] = "",
    model: Annotated[
        str,
        typer.Option(help="--hub: push the model of this asset (rl_policy) as a model, and nothing else."),
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="--hub: a new repository is public.")] = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Write an experiment into a folder: artifacts, manifests, numbers, lineage, report, checksums."""
    if folder is None and not hub:
        raise CommandError("give a folder, or --hub OWNER/NAME")
    if model and not hub:
        raise CommandError("--model goes with --hub; e2h inspect tells the folder of an artifact")
    with opened_experiments() as experiments:
        key = known_key(experiments, key)
        leaks = experiments.standing(key).leaks
        if hub:  # numbers that do not count are not published by an oversight
            refuse_leaks(leaks, allow_leaks)
        if model:
            _push(experiments.artifact(model, key).path, hub, "model", public, f"{model} of {key}")
            return
        with (
            TemporaryDirectory(dir=_scratch(folder))
            if folder is None
            else nullcontext(folder.parent) as place
        ):
            _export(experiments, key, folder or Path(place) / "export", without or [], hub, public)
    refuse_leaks(leaks, allow_leaks)


def _scratch(folder: Path | None) -> Path | None:
    """Where a folder is made only to be pushed: the home, whose disk holds the artifacts already."""
    place = home()
    return place if folder is None and place.is_dir() else None


def _export(
    experiments: Experiments, key: str, folder: Path, without: list[str], hub: str, public: bool
) -> None:
    from e2h_pipeline.operations.export import export as write

    made = write(experiments, key, folder, without)
    typer.echo(f"{hub or folder}: {len(made)} artifacts of {key}")
    if hub:
        _push(folder, hub, "dataset", public, f"Experiment {key}")


def _push(folder: Path, repo: str, kind: Literal["model", "dataset"], public: bool, message: str) -> None:
    from e2h_pipeline.operations.hub import HubError, push

    if kind == "model" and not (folder / "config.json").is_file():
        raise CommandError(f"{folder} holds no model")
    try:
        typer.echo(push(folder, repo, kind, not public, message))
    except HubError as error:
        raise CommandError(str(error)) from None


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
