"""Shared by the commands: their error and JSON output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


AllowLeaks = Annotated[
    bool, typer.Option("--allow-leaks", help="Status 0 although the supervision firewall failed.")
]


class CommandError(RuntimeError):
    """A command cannot do what was asked; the message is one line for people."""


def refuse_leaks(leaks: Iterable[str], allowed: bool) -> None:
    """Called after the output: numbers of an experiment with a leak do not count.

    Raises:
        CommandError: there are leaks, and they were not asked for.
    """
    found = list(dict.fromkeys(leaks))
    if found and not allowed:
        raise CommandError(
            f"supervision firewall: these numbers do not count: {found[0]}"
            + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
            + "; mend it and run again, or pass --allow-leaks"
        )


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, default=str))
