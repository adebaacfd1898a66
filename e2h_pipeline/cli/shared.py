"""Shared by the commands: their error and JSON output."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


class CommandError(RuntimeError):
    """A command cannot do what was asked; the message is one line for people."""


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, default=str))
