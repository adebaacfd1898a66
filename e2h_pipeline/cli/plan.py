"""`e2h plan`: the memory of each stage on a card, the field to change where it does not fit, and how
long reinforcement learning takes where its speed was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.recipe import DEFAULT_KEY, OnlineRl, Recipe, one_spelling
from e2h_pipeline.recipe.keys import split_key

if TYPE_CHECKING:
    from e2h_pipeline.models.memory import Cards
    from e2h_pipeline.operations.memory_plan import StagePlan
    from e2h_pipeline.operations.time_plan import TimePlan

_MEASURING = 3  # updates of the run that is suggested to measure a host


def plan(
    key: Annotated[str, typer.Argument(help="Recipe name plus overrides.")] = DEFAULT_KEY,
    gpu: Annotated[float | None, typer.Option(help="GB of a card; this host's if omitted.")] = None,
    gpus: Annotated[int, typer.Option(help="Cards; with more than one, training shards over all.")] = 1,
    as_json: Json = False,
) -> None:
    """What each stage takes on a GPU, whether it fits, and which field to change where it does not.

    Also how long rl_policy takes, if a run like it was measured on this host.
    """
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.models.base import ModelError
    from e2h_pipeline.operations.memory_plan import memory_plan
    from e2h_pipeline.operations.time_plan import time_plan
    from resources.engine import EngineResource

    recipe = Recipe.from_key(key, recipe_folders(home()))
    key = one_spelling(key, recipe_folders(home()))
    cards, engine = _cards(gpu, gpus), EngineResource.from_environment().name
    try:
        found = memory_plan(recipe, cards, engine)
        own = gpu is None  # of cards that were only named, no speed is known
        time = time_plan(recipe, cards, engine, ArtifactStore(home())) if own else None
    except ModelError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json(
            {
                "key": key,
                "stages": [stage.as_dict() for stage in found],
                "rl_policy_time": time.as_dict() if time else None,
            }
        )
    else:
        _show(key, found, cards)
        if own:
            show_time(key, recipe, time)


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


def show_time(key: str, recipe: Recipe, time: TimePlan | None) -> None:
    """Print how long `rl_policy` takes, or how to measure it; nothing where it trains in rounds."""
    from rich.markup import escape

    from e2h_pipeline.cli.view import console
    from e2h_pipeline.report.lineage_view import duration

    if not isinstance(recipe.rl, OnlineRl) or recipe.scope != "pipeline":
        return
    out = console()
    if time is None:
        name, overrides = split_key(key)
        fields = "/".join(f"{f}={v}" for f, v in (overrides | {"rl.updates": str(_MEASURING)}).items())
        out.print(
            f"rl_policy: time not measured here; a short run on this host measures it: e2h run {name}/{escape(fields)}",
            soft_wrap=True,
        )
        return
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in time.rates.items())
    out.print(
        f"rl_policy takes about {duration(time.seconds)}, {duration(time.at_most)} at most. "
        f"Tokens of completions per second: {rates} ({escape(time.measured)})",
        soft_wrap=True,
    )
