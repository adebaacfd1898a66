"""`e2h doctor`: leftovers of killed processes; state of MLflow, disk, pools, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from e2h_pipeline.artifacts.home import home
from e2h_pipeline.cli.shared import CommandError, Json, print_json

if TYPE_CHECKING:
    from e2h_pipeline.orchestration.leftovers import Finding

_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend all that can be mended. Without it nothing is changed.")
    ] = False,
    gone: Annotated[
        list[str] | None, typer.Option(help="A host that is gone; its runs count as dead. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what killed processes left: runs, slots, processes, files. Status 1 if any remain."""
    from e2h_pipeline.operations.doctor import examine, mend, unmended

    found = (mend if fix else examine)(home(), gone or [])
    left = unmended(found)
    if as_json:
        print_json({"home": str(home()), "problems": len(left), "findings": [one.as_row() for one in found]})
    else:
        _print(found)
    if left and not fix:
        fixable = sum(one.mend is not None for one in left)
        raise CommandError(f"{len(left)} problems; `e2h doctor --fix` mends {fixable} of them")
    if left:
        raise CommandError(f"{len(left)} problems are left, the first: {left[0].text}")


def _print(found: list[Finding]) -> None:
    from rich.markup import escape

    from e2h_pipeline.cli.view import console

    out = console()
    for one in found:
        level = "mended" if one.done else one.level
        style = "cyan" if one.done else _STYLES[one.level]
        where = "" if one.kind in ("daemon", "version", "making") else f"{one.subject}  "
        told = f"[bold]: {escape(one.done)}[/bold]" if one.done else ""
        out.print(
            f"[{style}]{level:<8}[/{style}] {one.kind:<8} {escape(where + one.text)}{told}", soft_wrap=True
        )
