"""`e2h diff`, `e2h verify` and `e2h gc`: compare two results, check the store, free space in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.garbage import GRACE_SECONDS
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import (
    AllowLeaks,
    CommandError,
    Json,
    opened_experiments,
    print_json,
    refuse_leaks,
)
from e2h_pipeline.recipe import RecipeError, canonical_key, one_spelling

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from rich.table import Table

    from e2h_pipeline.artifacts.garbage import CollectionPlan, Garbage
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.artifacts.verify import Verification

_SHOWN = 12  # characters of a hash
_LINE_SECONDS = 10.0  # between lines of progress outside a terminal
_MOST_FINDINGS = 50
_VALUE_LENGTH = 60


def diff(
    first: Annotated[
        str, typer.Argument(help="Recipe key; or KEY@PREFIX, an older result by its artifact key.")
    ],
    second: Annotated[str, typer.Argument(help="Recipe key, or KEY@PREFIX.")],
    everything: Annotated[bool, typer.Option("--all", help="Include every N and single levels.")] = False,
    as_json: Json = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """What differs upstream between two results, where it begins, and how the numbers moved."""
    with opened_experiments() as experiments:
        found = experiments.difference(_named(first), _named(second), everything)
    if as_json:
        print_json(found)
    else:
        _print_difference(found)
    refuse_leaks([*found["first"]["leaks"], *found["second"]["leaks"]], allow_leaks)


def verify(
    key: Annotated[
        str, typer.Argument(help="Check only the artifacts of this experiment; all if omitted.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check the store's hashes against manifests and Dagster's records. Status 1 if they differ."""
    from e2h_pipeline.artifacts.verify import verify_store
    from e2h_pipeline.orchestration.records import experiment_places, record_findings

    key = _spelled(key) if key else ""
    with _opened() as (instance, store):
        places = experiment_places(instance, key) if key else None
        if key and not places:
            raise CommandError(f"{key} has nothing in the store; run: e2h run {key}")
        with _progress() as progress:
            result = verify_store(store, places, progress)
        result.findings.extend(record_findings(instance, store, [key] if key else None))
    if as_json:
        print_json({**vars(result), "findings": [vars(finding) for finding in result.findings]})
    else:
        _print_verification(result)
    if result.findings:
        raise CommandError(f"{len(result.findings)} findings; the store is not what its manifests say")


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without it, only list it.")] = False,
    grace: Annotated[
        float,
        typer.Option(
            min=0, help="Minutes for which new and requested artifacts are spared; 0 if nothing runs."
        ),
    ] = GRACE_SECONDS / 60,
    pools: Annotated[
        bool, typer.Option(help="Also remove work that a larger number of samples would reuse.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what no experiment uses, and its size in bytes; --yes removes it."""
    from e2h_pipeline.artifacts.garbage import collect, plan_collection
    from e2h_pipeline.orchestration.planning import stage_order  # fills STAGES
    from e2h_pipeline.orchestration.records import wanted_places

    with _opened(change=yes) as (instance, store):
        plan = plan_collection(store, wanted_places(instance), _grows(stage_order()), 60 * grace, pools)
    if not as_json:
        _print_plan(plan)
    outcome = collect(store, plan) if yes else None
    if as_json:
        print_json(
            {
                "bytes": plan.bytes,
                "kept_artifacts": plan.kept_artifacts,
                "garbage": [_garbage_row(item) for item in plan.garbage],
                "kept_work": [_garbage_row(item) for item in plan.kept_work],
                "removed": None if outcome is None else [str(item.path) for item in outcome.removed],
                "spared": None if outcome is None else [str(item.path) for item in outcome.spared],
            }
        )
    elif outcome is None:
        typer.echo("nothing was removed; e2h gc --yes does it" if plan.garbage else "nothing to remove")
    else:
        spared = f"; {len(outcome.spared)} spared, as they are in use" if outcome.spared else ""
        typer.echo(f"removed {len(outcome.removed)}, {_bytes(outcome.bytes)} freed{spared}")


@contextmanager
def _opened(change: bool = False) -> Iterator[tuple[DagsterInstance, ArtifactStore]]:
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.instance import open_instance, open_to_read

    with (open_instance if change else open_to_read)(home()) as instance:
        yield instance, ArtifactStore(home())


def _named(name: str) -> str:
    """The one spelling of a key; a suffix after @ is left as it is."""
    key, at, prefix = name.partition("@")
    return _spelled(key) + at + prefix


def _spelled(key: str) -> str:
    """The one spelling of a key, as far as it can be told: its recipe may be one of an earlier version."""
    try:
        return one_spelling(key, recipe_folders(home()))
    except RecipeError:
        return canonical_key(key)


def _grows(stages: Sequence[str]) -> dict[str, str]:
    from e2h_pipeline.stages.spec import STAGES

    return {name: STAGES[name].grows for name in stages if STAGES[name].grows}


def _garbage_row(item: Garbage) -> dict[str, Any]:
    return {"kind": item.kind, "path": str(item.path), "bytes": item.bytes, "why": item.why}


@contextmanager
def _progress() -> Iterator[Callable[[int, int, float], None]]:
    """Show bytes read, rate and time left: one line in a terminal, several elsewhere."""
    import sys

    from e2h_pipeline.cli.view import console

    out = console(sys.stderr)
    last = time.monotonic()
    with out.status("listing the store") as status:

        def show(done: int, total: int, seconds: float) -> None:
            nonlocal last
            rate = done / seconds if seconds > 0 else 0.0
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
            text = f"{_bytes(done)} of {_bytes(total)} ({_bytes(rate)}/s{left})"
            status.update(text)
            if not out.is_terminal and time.monotonic() - last > _LINE_SECONDS:
                last = time.monotonic()
                out.print(text)

        yield show


def _print_verification(result: Verification) -> None:
    from rich.markup import escape

    from e2h_pipeline.cli.view import console

    out = console()
    rate = result.bytes / result.seconds if result.seconds else 0.0
    out.print(
        f"{result.artifacts:,} artifacts, {result.files:,} files, {_bytes(result.bytes)} in {result.seconds:.1f} s "
        f"({_bytes(rate)}/s)"
    )
    for finding in result.findings[:_MOST_FINDINGS]:
        out.print(
            f"[red]{finding.kind}[/red] {escape(finding.where)}: {escape(finding.message)}", soft_wrap=True
        )
    if len(result.findings) > _MOST_FINDINGS:
        out.print(f"and {len(result.findings) - _MOST_FINDINGS} more; --json lists them")
    if not result.findings:
        out.print("[green]all as the manifests say[/green]")


def _print_plan(plan: CollectionPlan) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from e2h_pipeline.cli.view import console

    table = Table("kind", "asset", "why", box=SIMPLE)
    table.add_column("number", justify="right")
    table.add_column("frees", justify="right")
    for (kind, asset, why), (number, size) in _summed(plan.garbage).items():
        table.add_row(kind, asset, why, f"{number:,}", _bytes(size))
    out = console()
    out.print(
        f"{plan.kept_artifacts:,} artifacts stay; {len(plan.garbage):,} things can go: {_bytes(plan.bytes)}"
    )
    if plan.garbage:
        out.print(table)
    for (_, asset, why), (number, size) in _summed(plan.kept_work).items():
        out.print(f"[dim]stays: {number} work of {asset}, {_bytes(size)} ({why})[/dim]")


def _summed(items: Sequence[Garbage]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(kind, asset, why) -> number and bytes."""
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for item in items:
        asset = item.path.parent.name if item.kind in ("artifact", "work") else ""
        number, size = found.get((item.kind, asset, item.why), (0, 0))
        found[item.kind, asset, item.why] = (number + 1, size + item.bytes)
    return found


def _print_difference(found: Mapping[str, Any]) -> None:
    from rich.markup import escape

    from e2h_pipeline.cli.view import console, marked, print_notes
    from e2h_pipeline.statistics.multiple import CLEAR

    out = console()
    for name, side in (("A", found["first"]), ("B", found["second"])):
        told = escape(marked(side["experiment"], side))
        out.print(
            f"[bold]{name}[/bold] {told}: {side['asset']} {side['data_version'][:_SHOWN]}", soft_wrap=True
        )
        print_notes(side["experiment"], side)
    assets = found["assets"]
    if assets[-1]["same_artifact"]:
        out.print("the same artifact: nothing differs")
        return
    print_upstream(assets)
    if found["numbers"]:
        out.print("\nAccuracy in %, and B - A with its interval over problems")
        out.print(_moved_table(found["numbers"]))
        out.print(
            f"Bold: p below {CLEAR} among all {len(found['numbers'])} comparisons of this table (Holm). One run each: how "
            "far another seed would move them is in no interval; see e2h results --pool.",
            soft_wrap=True,
        )
    for name, only in (("A", found["only_first"]), ("B", found["only_second"])):
        if only:
            out.print(f"only in {name}: {escape(', '.join(only))}", soft_wrap=True)


def print_upstream(assets: Sequence[Mapping[str, Any]], first: str = "A", second: str = "B") -> None:
    """Where a difference begins and why, and the other assets.

    Args:
        assets: as `difference.as_row` makes them.
        first, second: names of the two sides.
    """
    from rich.markup import escape

    from e2h_pipeline.artifacts.difference import grouped, reasons
    from e2h_pipeline.cli.view import console

    out = console()
    roots = [asset for asset in assets if asset["root"]]
    out.print("\nThe difference begins at" if roots else "\nNo asset differs for a reason of its own")
    for asset in roots:
        out.print(f"  [bold]{asset['asset']}[/bold] {_versions(asset)}")
        for part, field, one, other in reasons(asset):
            values = f"{_short(one)} -> {_short(other)}"
            out.print(f"    {part:<9} {escape(field)}: {escape(values)}", soft_wrap=True)
    for name, members in grouped(assets, first, second).items():
        out.print(f"  {name}: {', '.join(members)}", soft_wrap=True)


def _moved_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    from e2h_pipeline.statistics.multiple import CLEAR

    table = Table("benchmark", "policy", "method", "N", "levels", box=SIMPLE)
    for column in ("A", "B", "B - A"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        moved = f"{100 * row['difference']:+.1f}"
        if row["paired"]:
            moved += f" \\[{100 * row['ci_low']:+.1f}, {100 * row['ci_high']:+.1f}]"
            moved = f"[bold]{moved}[/bold]" if row["holm"] < CLEAR else moved
        else:
            moved += " other problems"
        table.add_row(
            row["benchmark"],
            row["policy"],
            f"{row['method']} {row['aggregation']}".strip(),
            str(row["n"]),
            row["levels"],
            f"{100 * row['first']:.1f}",
            f"{100 * row['second']:.1f}",
            moved,
        )
    return table


def _versions(asset: Mapping[str, Any]) -> str:
    return f"{asset['first']['data_version'][:_SHOWN]} -> {asset['second']['data_version'][:_SHOWN]}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 3] + "..."


def _bytes(count: float) -> str:
    """Bytes for people, in powers of 1,000, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
