"""`e2h plan`: the memory of each stage on a card, and the field to change where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.recipe import DEFAULT_KEY, Recipe, one_spelling

if TYPE_CHECKING:
    from e2h_pipeline.models.memory import Cards
    from e2h_pipeline.operations.memory_plan import StagePlan


def plan(
    key: Annotated[str, typer.Argument(help="Recipe name plus overrides.")] = DEFAULT_KEY,
    gpu: Annotated[float | None, typer.Option(help="GB of a card; this host's if omitted.")] = None,
    gpus: Annotated[int, typer.Option(help="Cards; with more than one, training shards over all.")] = 1,
    as_json: Json = False,
) -> None:
    """What each stage takes on a GPU, whether it fits, and which field to change where it does not."""
    from e2h_pipeline.models.base import ModelError
    from e2h_pipeline.operations.memory_plan import memory_plan
    from resources.engine import EngineResource

    recipe = Recipe.from_key(key, recipe_folders(home()))
    key = one_spelling(key, recipe_folders(home()))
    cards = _cards(gpu, gpus)
    try:
        found = memory_plan(recipe, cards, EngineResource.from_environment().name)
    except ModelError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json({"key": key, "stages": [stage.as_dict() for stage in found]})
    else:
        _show(key, found, cards)


def _cards(gpu: float | None, gpus: int) -> Cards:
    """The cards that were asked for.

    Raises:
        CommandError: a size or number below 1.
    """
    from e2h_pipeline.models.memory import GB, Cards
    from e2h_pipeline.operations.memory_plan import host_cards

    if gpus < 1 or (gpu is not None and not gpu >= 1):
        raise CommandError("--gpu and --gpus must be 1 or more")
    cards = host_cards() if gpu is None else Cards(int(gpu * GB))
    return replace(cards, count=gpus, ranks=gpus, sharded=gpus > 1)


def _show(key: str, found: Sequence[StagePlan], cards: Cards) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from e2h_pipeline.cli.view import console
    from e2h_pipeline.models.memory import GB

    what = "GPU" if cards.accelerator else "CPU host"
    out = console()
    out.print(f"[bold]{escape(key)}[/bold] on {cards.count} x {what} of {cards.bytes / GB:.0f} GB")
    table = Table("stage", "phase", "cards", "GB a card", "of which", "fits", box=SIMPLE)
    for stage in found:
        for phase in stage.phases:
            largest = phase is stage.peak
            items = ", ".join(
                f"{name} {size / GB:.1f}" for name, size in phase.items.items() if size >= GB / 20
            )
            fits = ("yes" if stage.fits else "[red]no[/red]") if largest else ""
            table.add_row(
                stage.stage,
                phase.name,
                str(stage.cards),
                f"{phase.bytes / GB:.1f}",
                items,
                fits,
                style="bold" if largest and len(stage.phases) > 1 else "",
            )
    out.print(table)
    for stage in found:
        if not stage.fits:
            out.print(f"{stage.stage} does not fit. Change: {escape(stage.advice)}", soft_wrap=True)
