"""`e2h sweep`: run the missing and stale members of a sweep, or show its state."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders, sweep_folders, writable
from e2h_pipeline.cli.shared import CommandError, Json, print_json
from e2h_pipeline.sweeps.spec import SWEEP_FOLDER, Sweep, SweepError, load_sweep, members, shown, sweep_names

if TYPE_CHECKING:
    from rich.table import Table

    from e2h_pipeline.operations.sweep_runner import MemberOutcome
    from e2h_pipeline.sweeps.status import MemberStatus

_STYLES = {"made": "green", "running": "cyan", "failed": "red", "stale": "yellow", "missing": "dim"}


def sweep(
    name: Annotated[
        str, typer.Argument(help="A sweep's name, or its file; lists the sweeps if omitted.")
    ] = "",
    workers: Annotated[
        int, typer.Option(help="Members at a time, each in its own process; 0 for one per core.")
    ] = 0,
    status: Annotated[bool, typer.Option("--status", help="Only show the state of each member.")] = False,
    sort: Annotated[
        str, typer.Option(help="What the page's recipes are sorted by: a number, an axis, or 'grid'.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Run the missing and stale members of a sweep. Stages that members share are made once."""
    folders = sweep_folders(home())
    if not name:
        _print_sweeps(folders, as_json)
        return
    chosen = load_sweep(name, folders)
    if not status:
        _run(chosen, workers or os.cpu_count() or 1, sort, as_json)
        return
    with _without_collector():
        rows, page = _look(chosen, sort)
    if as_json:
        from e2h_pipeline.sweeps.status import as_row

        print_json([dict(as_row(row)) for row in rows])
    else:
        _print_status(chosen, rows, page)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Without Python's search for cyclic garbage: a quarter of the time of a short command that
    keeps nearly all it makes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _run(chosen: Sweep, workers: int, sort: str, as_json: bool) -> None:
    from rich.markup import escape

    from e2h_pipeline.cli.view import console
    from e2h_pipeline.operations.runner import RunStopped
    from e2h_pipeline.operations.sweep_runner import SweepEvent, run_sweep

    out = console()
    total = len(members(chosen, recipe_folders(home())))

    def watch(event: SweepEvent) -> None:
        if event.stage is None:
            told = "[green]made[/green]"
            if event.error or event.given_up:
                told = (
                    f"[red]failed[/red] {escape(event.error)}"
                    if event.error
                    else f"[yellow]given up[/yellow] {escape(event.given_up or '')}"
                )
            out.print(f"{event.key}  {told}", soft_wrap=True)
            _look(chosen, sort)
        elif event.stage.kind in ("computed", "check_failed") and not as_json:
            took = f"{event.stage.seconds:8.1f} s" if event.stage.kind == "computed" else ""
            out.print(
                f"  {event.stage.stage:<26}{event.stage.kind:<13}{took}  [dim]{event.key}[/dim]",
                soft_wrap=True,
            )

    if not as_json:
        out.print(
            f"[bold]{chosen.name}[/bold]: {total} members, {workers} at a time, in {escape(str(home()))}",
            soft_wrap=True,
        )
    _look(chosen, sort)  # writes the page before the first member starts
    try:
        outcomes = run_sweep(chosen, home(), workers, watch)
    except RunStopped as error:
        raise CommandError(str(error)) from None
    rows, page = _look(chosen, sort)
    if as_json:
        print_json([vars(outcome) for outcome in outcomes])
    else:
        _print_outcomes(total, outcomes)
        out.print(str(page), soft_wrap=True, markup=False)
    failed = [outcome.key for outcome in outcomes if outcome.error]
    failed += [row.member.key for row in rows if row.standing.leaks and row.member.key not in failed]
    if failed:
        raise CommandError(f"{len(failed)} of {total} members failed, the first is {failed[0]}")


def _print_outcomes(total: int, outcomes: list[MemberOutcome]) -> None:
    from e2h_pipeline.cli.view import console

    computed = sum(len(outcome.computed) for outcome in outcomes)
    reused = sum(len(outcome.reused) for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    console().print(
        f"{total - len(outcomes)} members were made already, {len(outcomes)} were run: {computed} stages computed in "
        f"{seconds:,.0f} s, {reused} reused",
        soft_wrap=True,
    )


def _look(chosen: Sweep, sort: str) -> tuple[list[MemberStatus], Path | None]:
    """The state of the members, and the page that shows it, newly written where the home allows it."""
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.instance import open_to_read
    from e2h_pipeline.sweeps.page import write_page
    from e2h_pipeline.sweeps.status import sweep_status

    store = ArtifactStore(home())
    with open_to_read(home()) as instance:
        rows = sweep_status(instance, store, chosen)
        return rows, write_page(store, chosen, rows, sort) if writable(home() / "reports") else None


def _print_status(chosen: Sweep, rows: list[MemberStatus], page: Path | None) -> None:
    from e2h_pipeline.cli.view import console, print_titled

    counts = ", ".join(
        f"{sum(row.state == state for row in rows)} {state}"
        for state in _STYLES
        if any(row.state == state for row in rows)
    )
    print_titled(f"{chosen.name}: {len(rows)} members, {counts}", _status_table(rows))
    if page:
        console().print(str(page), soft_wrap=True, markup=False)


def _status_table(rows: list[MemberStatus]) -> Table:
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE)
    axes = list(rows[0].member.values)
    for axis in axes:
        table.add_column(axis, no_wrap=True)
    for column in ("state", "stages", "why"):
        table.add_column(column)
    for row in rows:
        values = [escape(str(value)) for value in row.member.values.values()]
        state = f"[{_STYLES[row.state]}]{row.state}[/{_STYLES[row.state]}]"
        state += "" if row.standing.strict else " (not strict)"
        table.add_row(*values, state, f"{row.made}/{row.stages}", escape(row.error))
    return table


def _print_sweeps(folders: list[Path], as_json: bool) -> None:
    """List all sweeps; an unusable one with its error, so that it does not hide the others."""
    from rich.markup import escape

    from e2h_pipeline.cli.view import console

    rows: dict[str, dict[str, Any]] = {}
    lines = []
    for name in sweep_names(folders):
        try:
            one = load_sweep(name, folders)
            count = len(members(one, recipe_folders(home())))
        except SweepError as error:
            rows[name] = {"error": str(error)}
            lines.append(f"[bold]{escape(name)}[/bold]  [red]cannot be used[/red]  {escape(str(error))}")
            continue
        axes = {axis: list(map(shown, values)) for axis, values in one.axes.items()}
        rows[name] = {**one.model_dump(mode="json"), "axes": axes}
        lines.append(f"[bold]{name}[/bold] ({count} members)  {escape(one.description)}")
    if as_json:
        print_json(rows)
        return
    lines.append(
        f"[dim]your own: {escape(str(home() / 'sweeps'))}, shipped: {escape(str(SWEEP_FOLDER))}[/dim]"
    )
    for line in lines:
        console().print(line, soft_wrap=True)
