"""Shared by the commands: their error and JSON output."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.json_text import json_text
from e2h_pipeline.recipe import Recipe, one_spelling
from e2h_pipeline.recipe.section import did_you_mean
from e2h_pipeline.stages.names import NAMES

if TYPE_CHECKING:
    from e2h_pipeline.orchestration.experiments import Experiments

_SELECTED = re.compile(r"\+?([a-z][a-z0-9_]*)\+?")

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


def own_streams() -> None:
    """Occupy the standard streams that a caller has closed.

    Else the next file that is opened, such as a database, gets their number and their output.

    Raises:
        CommandError: there is nowhere to write to.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- lives as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise CommandError("stdout is closed; redirect it to a file or to /dev/null")


def drop_output() -> None:
    """Send what is left of the output nowhere: stdout cannot take it, and Python would try again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def quiet_libraries() -> None:
    """Turn off progress bars and advice of libraries; set the variables to get them back."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json_text(value, indent=1))


def checked_key(key: str) -> str:
    """The one spelling of a key whose recipe parses."""
    Recipe.from_key(key, recipe_folders(home()))
    return one_spelling(key, recipe_folders(home()))


def check_selection(select: str | None) -> None:
    """Refuse names of stages that are not there, before Dagster is loaded; it reads all other selections.

    Raises:
        CommandError: there is such a name.
    """
    found = [_SELECTED.fullmatch(part.strip()) for part in (select or "").split(",")]
    for name in [match[1] for match in found if match] if all(found) else ():
        if name not in NAMES:
            raise CommandError(
                f"--select: no stage '{name}'{did_you_mean(name, NAMES)}; there are: {', '.join(NAMES)}"
            )


def known_key(experiments: Experiments, key: str) -> str:
    """The spelling of a key with results (of any version), or of a valid recipe."""
    from e2h_pipeline.orchestration import spelling

    return spelling.known_key(experiments.ledger.experiments(), key, home())


@contextmanager
def opened_experiments() -> Iterator[Experiments]:
    """The experiments of the home folder, to be read."""
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.reading import open_ledger

    with open_ledger(home()) as ledger:
        yield Experiments(ledger, ArtifactStore(home()))
