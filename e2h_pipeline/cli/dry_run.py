"""`e2h run --dry-run`: what a run would make and reuse, what is missing, and about how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, print_json
from e2h_pipeline.recipe import Recipe

if TYPE_CHECKING:
    from e2h_pipeline.operations.forecast import Forecast
    from e2h_pipeline.operations.memory_plan import StagePlan

_NO_LIMIT = 0


def dry_run(key: str, select: str | None, as_json: bool) -> None:
    """Tell what `e2h run KEY` would do; nothing is written, computed or downloaded.

    Raises:
        CommandError: something is missing; the status says so.
    """
    from e2h_pipeline.operations.forecast import forecast
    from e2h_pipeline.orchestration.planning import selection

    try:
        chosen = selection(select) if select else None
    except ValueError as error:
        raise CommandError(f"--select: {error}") from None
    found = forecast(key, home(), chosen, _device())
    if not as_json:  # before torch is loaded, which takes seconds
        _show(found)
    if not as_json and found.todo:
        typer.echo("memory is reckoned, which takes half a minute for a model of billions")
    plans, reckoned = _memory(key, found)
    missing = [*found.missing, *_too_large(plans), *_too_little_disk(key, found, reckoned)]
    if as_json:
        print_json({**found.as_dict(), "missing": missing, "memory": [plan.as_dict() for plan in plans]})
    else:
        _show_memory(plans)
        for one in missing[len(found.missing) :]:
            _tell("red", "missing", one)
    if missing:
        raise CommandError(f"{len(missing)} things are missing, the first: {missing[0]}")


def _device() -> str:
    """The device that manifests of this host name; without a GPU torch is not loaded."""
    if not any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return "cpu"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def _memory(key: str, found: Forecast) -> tuple[Sequence[StagePlan], int]:
    """The memory of the stages that would be computed, and the bytes of the base model's weights; none where
    the model has no shapes here."""
    from e2h_pipeline.stages.spec import STAGES

    todo = frozenset(stage for stage in found.todo if STAGES[stage].gpu)
    recipe = Recipe.from_key(key, recipe_folders(home()))
    if not todo or recipe.base.train:
        return [], _NO_LIMIT
    from e2h_pipeline.models.base import ModelError
    from e2h_pipeline.operations.memory_plan import host_cards, memory_plan, weights_of
    from resources.engine import EngineResource

    try:
        engine = EngineResource.from_environment().name
        return memory_plan(recipe, host_cards(), engine, todo, advise=False), weights_of(recipe)
    except ModelError as error:
        _tell("yellow", "note", f"memory is not known: {error}", err=True)
        return [], _NO_LIMIT


def _too_large(plans: Sequence[StagePlan]) -> list[str]:
    return [
        f"{plan.stage} takes {plan.peak.bytes / 1e9:.1f} GB of memory and {plan.limit / 1e9:.1f} GB are there; e2h plan "
        "says which field to change"
        for plan in plans
        if not plan.fits
    ]


def _too_little_disk(key: str, found: Forecast, weights: int) -> list[str]:
    from e2h_pipeline.operations.forecast import disk_needed, free_bytes

    needed = disk_needed(Recipe.from_key(key, recipe_folders(home())), found.todo, weights)
    free = free_bytes(home())
    if needed <= free:
        return []
    return [f"the models take {needed / 1e9:.1f} GB, and {home()} has {free / 1e9:.1f} GB free"]


def _show(found: Forecast) -> None:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from e2h_pipeline.cli.view import console
    from e2h_pipeline.report.lineage_view import duration

    out = console()
    out.print(f"[bold]{escape(found.key)}[/bold] in {escape(str(home()))}; nothing is run", soft_wrap=True)
    table = Table("stage", "", box=SIMPLE)
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("from")
    for stage in found.stages:
        took = "" if stage.reused else "unknown" if stage.seconds is None else duration(stage.seconds)
        told = "[dim]reused[/dim]" if stage.reused else "[green]made[/green]"
        table.add_row(stage.stage, told, took, escape(stage.reckoned))
    out.print(table)
    known = [stage.seconds for stage in found.stages if stage.seconds is not None]
    unknown = len(found.todo) - len(known)
    if found.todo and not known:
        out.print(
            f"{len(found.todo)} stages are made; how long is not known, as nothing like it was run here"
        )
    elif found.todo:
        least = f", and {unknown} that nothing is known of" if unknown else ""
        out.print(
            f"{len(found.stages) - len(found.todo)} of {len(found.stages)} stages are reused; the others take about "
            f"{duration(sum(known))}{least}; less where inputs come out equal to earlier ones",
            soft_wrap=True,
        )
    else:
        out.print("all stages are reused")
    for style, name, ones in (("red", "missing", found.missing), ("yellow", "note", found.notes)):
        for one in ones:
            _tell(style, name, one)


def _tell(style: str, name: str, text: str, err: bool = False) -> None:
    import sys

    from rich.markup import escape

    from e2h_pipeline.cli.view import console

    console(sys.stderr if err else None).print(f"[{style}]{name}[/{style}] {escape(text)}", soft_wrap=True)


def _show_memory(plans: Sequence[StagePlan]) -> None:
    from e2h_pipeline.cli.view import console

    told: list[Any] = [f"{plan.stage} {plan.peak.bytes / 1e9:.1f}" for plan in plans]
    if plans:
        console().print(
            f"memory in GB of {plans[0].limit / 1e9:.0f}: {', '.join(told)} (e2h plan tells of what)",
            soft_wrap=True,
        )
