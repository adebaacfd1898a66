"""`e2h`: run experiments, read their numbers, and ask what fed them.

    e2h run ladder/seed=1          materialize an experiment through Dagster
    e2h results ladder --json      its numbers, with intervals and data versions
    e2h lineage ladder             each number back to its easy data
    e2h inspect sft_policy --key ladder
    e2h report ladder
    e2h recipes
    e2h ui

Errors are one line on stderr and a status that is not zero. What a command needs is imported inside
it, so that `e2h --help` is quick.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.store import StoreError
from e2h_pipeline.artifacts.tables import TableError
from e2h_pipeline.recipe import DEFAULT_KEY, Recipe, RecipeError, canonical_key, recipe_names

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from e2h_pipeline.artifacts.lineage import Node
    from e2h_pipeline.lookup import Experiments
    from e2h_pipeline.runner import StageEvent

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

_LEVELS = ("easy", "hard", "all")
_INTERRUPTED = 130  # what shells report for Ctrl-C

Key = Annotated[str, typer.Argument(help="Recipe name plus overrides: ladder/rl.updates=50/seed=1")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def main() -> None:
    """Entry point: user errors become one line and status 1."""
    try:
        app()
    except (RecipeError, StoreError, ManifestError, TableError, CommandError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped", _INTERRUPTED)


class CommandError(RuntimeError):
    """A command that cannot do what was asked; the message is one line for people."""


@app.command()
def run(
    key: Key = DEFAULT_KEY,
    select: Annotated[
        str | None, typer.Option(help="Only these assets: 'easy_prm,rerank_scores+'; + reaches further.")
    ] = None,
) -> None:
    """Materialize an experiment; what is already made is reused."""
    key = _checked(key)
    _quiet_libraries()
    from e2h_pipeline.runner import RunError, run_experiment

    # Dagster captures descriptor 1 while stages run; progress goes to the terminal itself.
    with _terminal() as console, _progress(console) as watch:
        console.print(f"[bold]{key}[/bold] in {home()}")
        try:
            run_experiment(key, home(), select, watch)
        except RunError as error:
            raise CommandError(str(error)) from None
    with _experiments() as experiments:
        if experiments.metrics_artifact(key) is not None:
            _print_results(experiments.results(key))


@app.command()
def results(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Recipe keys; all that have results where none.")
    ] = None,
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="Every N and single levels too.")] = False,
) -> None:
    """Accuracy of every policy and method, with intervals."""
    from e2h_pipeline.evaluation.results import select

    with _experiments() as experiments:
        chosen = [_checked(key) for key in keys or []] or experiments.keys()
        rows = [row for key in chosen for row in experiments.results(key)]
    if as_json:
        _print_json(rows)
    elif not rows:
        raise CommandError("no experiment has results yet; run: e2h run")
    else:
        _print_results(rows if everything else select(rows), everything=everything)


@app.command()
def lineage(key: Key = DEFAULT_KEY, as_json: Json = False) -> None:
    """Each benchmark number back to its easy data version, with the path between."""
    from e2h_pipeline.lookup import tree

    key = _checked(key)
    with _experiments() as experiments:
        found = experiments.lineage(key)
        node = tree(experiments, key)
    if as_json:
        _print_json(found)
        return
    console = _console()
    console.print(_rich_tree(node))
    console.print(_lineage_table(found))


@app.command()
def inspect(
    asset: Annotated[str, typer.Argument(help="Asset name, as sft_policy.")],
    key: Annotated[str, typer.Option(help="Recipe key.")] = DEFAULT_KEY,
    as_json: Json = False,
) -> None:
    """The manifest of an artifact: what made it, from what, with which hashes and at what cost."""
    with _experiments() as experiments:
        artifact = experiments.artifact(_asset_name(asset), _checked(key))
    manifest = {"path": str(artifact.path), **artifact.manifest.model_dump(mode="json")}
    if as_json:
        _print_json(manifest)
    else:
        _print_manifest(manifest)


@app.command()
def report(key: Key = DEFAULT_KEY) -> None:
    """Put the report page into E2H_HOME/reports and print its path."""
    from e2h_pipeline.lookup import REPORT_STAGE, report_page

    key = _checked(key)
    with _experiments() as experiments:
        page = report_page(experiments.artifact(REPORT_STAGE, key).path)
    target = home() / "reports" / f"{key.replace('/', '__')}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, target)
    typer.echo(target)


@app.command()
def recipes() -> None:
    """Recipes that can be run: shipped ones, and those in E2H_HOME/recipes."""
    from rich.table import Table

    folders = recipe_folders(home())
    table = Table("recipe", "what it is", box=None)
    for name in recipe_names(folders):
        table.add_row(name, Recipe.from_key(name, folders).description)
    _console().print(table)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Dagster's port.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port.")] = 5000,
) -> None:
    """Dagster's and MLflow's web pages, on this machine only; Ctrl-C stops both."""
    from e2h_pipeline.ui import UiError, serve

    try:
        serve(home(), port, mlflow_port, typer.echo)
    except UiError as error:
        raise CommandError(str(error)) from None


def _checked(key: str) -> str:
    """The canonical form of a key whose recipe parses."""
    key = canonical_key(key)
    Recipe.from_key(key, recipe_folders(home()))
    return key


def _asset_name(name: str) -> str:
    from e2h_pipeline.definitions import build

    known = sorted(k.to_user_string() for k in build().resolve_asset_graph().get_all_asset_keys())
    if name not in known:
        raise CommandError(f"no asset '{name}'; there are: {', '.join(known)}")
    return name


@contextmanager
def _experiments() -> Iterator[Experiments]:
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.lookup import Experiments
    from e2h_pipeline.runner import open_instance

    with open_instance(home()) as instance:
        yield Experiments(instance, ArtifactStore(home()))


def _quiet_libraries() -> None:
    """No bars and advice from libraries between our own lines; set the variables to have them back."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


@contextmanager
def _terminal() -> Iterator[Console]:
    """A console on a descriptor of its own."""
    from rich.console import Console

    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as stream:
        yield Console(file=stream, highlight=False)


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    """A watcher that prints one line per stage, and what the running stage says beside it."""
    from rich.markup import escape

    counts = {"computed": 0, "reused": 0}
    with console.status("starting") as status:

        def watch(event: StageEvent) -> None:
            if event.kind in counts:
                counts[event.kind] += 1
                style = "green" if event.kind == "computed" else "dim"
                console.print(f"  {event.stage:<26}[{style}]{event.kind:<9}[/{style}]{event.seconds:8.1f} s")
            elif event.kind == "check_failed":
                console.print(f"  {event.stage:<26}[red]check failed: {event.text}[/red]")
            elif event.kind in ("started", "message"):
                status.update(f"{event.stage} {escape(event.text)}")
                if event.kind == "message" and not console.is_terminal:
                    console.print(f"    {event.stage}: {escape(event.text)}")

        yield watch
    console.print(f"{counts['computed']} stages computed, {counts['reused']} reused")


def _print_results(rows: Sequence[dict[str, Any]], *, everything: bool = False) -> None:
    """One table per benchmark; level groups side by side."""
    from rich.table import Table

    from e2h_pipeline.evaluation.results import select

    shown = list(rows) if everything else select(rows)
    levels = [
        level for level in ("1", "2", "3", "4", "5", *_LEVELS) if any(r["levels"] == level for r in shown)
    ]
    console = _console()
    for benchmark in dict.fromkeys(row["benchmark"] for row in shown):
        table = Table(title=f"{benchmark}: accuracy in % [95% interval]", title_justify="left")
        recovered = any(row.get("pgr") is not None for row in shown)
        for column in ("recipe", "policy", "method", "n", *levels, *(["PGR hard"] if recovered else [])):
            table.add_column(column, justify="left" if column in ("recipe", "policy", "method") else "right")
        for name, group in _methods(row for row in shown if row["benchmark"] == benchmark).items():
            cells = [_accuracy(group.get(level)) for level in levels]
            table.add_row(*map(str, name), *cells, *([_pgr(group.get("hard"))] if recovered else []))
        console.print(table)


def _methods(rows: Iterator[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, dict[str, Any]]]:
    grouped: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        name = (row["recipe"], row["policy"], f"{row['method']} {row['aggregation']}".strip(), row["n"])
        grouped.setdefault(name, {})[row["levels"]] = row
    return grouped


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]".replace(
        "[", "\\["
    )


def _pgr(row: dict[str, Any] | None) -> str:
    value = row.get("pgr") if row else None
    return "" if value is None else f"{value:.2f}"


def _rich_tree(node: Node) -> Tree:
    from rich.tree import Tree

    def label(n: Node) -> str:
        return (
            f"{n.asset} [cyan]{n.artifact.data_version[:12]}[/cyan] [dim]{n.artifact.manifest.created}[/dim]"
        )

    def grow(branch: Tree, parent: Node, seen: set[str]) -> None:
        for child in parent.inputs:
            if child.artifact.key in seen:
                branch.add(
                    f"{child.asset} [cyan]{child.artifact.data_version[:12]}[/cyan] [dim](above)[/dim]"
                )
                continue
            seen.add(child.artifact.key)
            grow(branch.add(label(child)), child, seen)

    top = Tree(label(node))
    grow(top, node, {node.artifact.key})
    return top


def _lineage_table(found: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(
        "benchmark", "policy", "method", "n", "levels", "accuracy", "easy data", "path", title_justify="left"
    )
    for number in found["numbers"]:
        ways = found["sources"][number["source"]]["paths"]
        path = " < ".join(step["asset"] for step in ways[0]) if ways else f"{number['source']} (no easy data)"
        easy = ", ".join(version[:12] for version in number["easy_data_version"]) or "-"
        method = f"{number['method']} {number['aggregation']}".strip()
        accuracy = f"{100 * number['accuracy']:.1f}"
        table.add_row(
            number["benchmark"],
            number["policy"],
            method,
            str(number["n"]),
            number["levels"],
            accuracy,
            easy,
            path,
        )
    return table


def _print_manifest(manifest: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name, value in manifest.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
        table.add_row(f"[bold]{name}[/bold]", text.replace("[", "\\["))
    _console().print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def _fail(message: str, status: int = 1) -> None:
    line = " ".join(message.split())
    typer.echo(f"e2h: {line}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
