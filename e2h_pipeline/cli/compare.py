"""`e2h compare`: experiments side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import home, writable
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
    from rich.table import Table

    from e2h_pipeline.orchestration.experiments import Experiments

_LONGEST_NAME = 120  # of the page's file, in characters


def compare(
    keys: Annotated[
        list[str],
        typer.Argument(help="Recipe keys, or KEY@PREFIX; the first is what the others are compared with."),
    ],
    html: Annotated[
        bool, typer.Option("--html", help="Write a page into E2H_HOME/reports, and print its path.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Include every N and single levels.")] = False,
    as_json: Json = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Experiments side by side: numbers with paired differences, curves, and what differs upstream."""
    from e2h_pipeline.orchestration import comparison
    from e2h_pipeline.report.compare import MOST

    if not 2 <= len(keys) <= MOST:
        raise CommandError(f"compare takes 2 to {MOST} experiments: e2h compare ladder ladder/seed=1")
    with opened_experiments() as experiments:
        chosen = [_named(experiments, key) for key in keys]
        if len(set(chosen)) < len(chosen):
            raise CommandError(f"{max(chosen, key=chosen.count)} is named twice")
        found = comparison.compare(experiments, chosen, everything)
        page = _write(experiments, found) if html else None
    if as_json:
        print_json({**found, "page": str(page)} if page else found)
    elif page:
        typer.echo(page)
    else:
        _print(found)
    refuse_leaks([leak for side in found["experiments"] for leak in side["leaks"]], allow_leaks)


def _named(experiments: Experiments, name: str) -> str:
    """The one spelling of a key; a suffix after @ is left as it is."""
    key, at, prefix = name.partition("@")
    return known_key(experiments, key) + at + prefix


def _write(experiments: Experiments, found: Mapping[str, Any]) -> Path:
    from e2h_pipeline.orchestration.comparison import curve_folders
    from e2h_pipeline.report.compare import compare_html

    folder = home() / "reports"
    if not writable(folder):
        raise CommandError(f"{folder} cannot be written; without --html the comparison is printed")
    folder.mkdir(parents=True, exist_ok=True)
    names = [side["experiment"] for side in found["experiments"]]
    name = "--".join(names).replace("/", "__")
    if len(name) > _LONGEST_NAME:
        name = f"{names[0].replace('/', '__')[:_LONGEST_NAME]}--{digest_json(names)[:8]}"
    page = folder / f"compare-{name}.html"
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page.write_text(compare_html(found, curve_folders(experiments, found), made), encoding="utf-8")
    return page


def _print(found: Mapping[str, Any]) -> None:
    from rich.markup import escape

    from e2h_pipeline.cli.store import print_upstream
    from e2h_pipeline.cli.view import console, marked, print_notes
    from e2h_pipeline.statistics.multiple import CLEAR

    out, letters = console(), _letters(found)
    for letter, side in zip(letters, found["experiments"], strict=True):
        easy = ", ".join(version[:12] for version in side["easy_data_version"]) or "none"
        told = f"{escape(marked(side['experiment'], side))}: {side['asset']}, easy data {easy}"
        out.print(f"[bold]{letter}[/bold] {told}", soft_wrap=True)
        if side["stopped"]:
            out.print(f"[yellow]rl {escape(side['stopped'])}[/yellow]", soft_wrap=True)
        print_notes(side["experiment"], side)
    out.print("\nAccuracy in %, and differences from A with their intervals over problems")
    out.print(_table(found["numbers"], letters))
    count = sum(1 for row in found["numbers"] for one in row["differences"] if one and one["paired"])
    out.print(
        f"Bold: p below {CLEAR} among all {count} comparisons of this table (Holm). One run each: how far another seed "
        "would move them is in no interval; see e2h results --pool.",
        soft_wrap=True,
    )
    for letter, one in zip(letters[1:], found["upstream"], strict=True):
        out.print(f"\n[bold]{letter} against A[/bold]", end="")
        print_upstream(one["assets"], "A", letter)


def _letters(found: Mapping[str, Any]) -> str:
    from string import ascii_uppercase

    return ascii_uppercase[: len(found["experiments"])]


def _table(rows: Sequence[Mapping[str, Any]], letters: str) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table("benchmark", "policy", "method", "N", "levels", box=SIMPLE)
    for head in (letters[0], *(head for other in letters[1:] for head in (other, f"{other} - A"))):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        first, *others = (
            "" if value is None else f"{100 * value['accuracy']:.1f}" for value in row["values"]
        )
        cells = [first]
        for value, difference in zip(others, row["differences"], strict=True):
            cells += [value, _moved(difference)]
        method = f"{row['method']} {row['aggregation']}".strip()
        table.add_row(row["benchmark"], row["policy"], method, str(row["n"]), row["levels"], *cells)
    return table


def _moved(row: Mapping[str, Any] | None) -> str:
    from e2h_pipeline.statistics.multiple import CLEAR

    if row is None:
        return ""
    moved = f"{100 * row['difference']:+.1f}"
    if not row["paired"]:
        return f"{moved} other problems"
    moved += f" \\[{100 * row['ci_low']:+.1f}, {100 * row['ci_high']:+.1f}]"
    return f"[bold]{moved}[/bold]" if row["holm"] < CLEAR else moved
