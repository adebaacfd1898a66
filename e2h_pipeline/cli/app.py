"""`e2h`: run experiments, read their numbers, and trace their inputs.

    e2h run ladder/seed=1          materialize an experiment through Dagster
    e2h run ladder --dry-run       what it would make and reuse, what is missing, how long it takes
    e2h sweep evaluators           run the missing and stale members of a sweep
    e2h results ladder --json      its numbers, with intervals and data versions
    e2h lineage ladder             each number back to its easy data
    e2h diff ladder ladder/seed=1  the differences between two results, and their effect
    e2h compare A B C --html       experiments side by side, as a page
    e2h verify                     hash the store again
    e2h gc                         list what no experiment uses; --yes removes it
    e2h inspect sft_policy --key ladder
    e2h report ladder
    e2h export ladder FOLDER       the experiment as a folder: for a supplement, or for e2h import elsewhere
    e2h data get math prm800k      fetch data of others; e2h data says what there is and what is here
    e2h init mine rl.updates=80    a recipe of your own; asks on a terminal
    e2h recipes ladder             a recipe, field by field, with where each value comes from; --check
    e2h grade answers.jsonl        grade answers made anywhere
    e2h rerank samples.jsonl       votes and best-of-N over samples made anywhere
    e2h score FILE --evaluator E   step scores for solutions made anywhere
    e2h judge FILE --evaluator E   an evaluator on steps that people labelled
    e2h label --key ladder         label steps by keyboard on a local page
    e2h doctor                     find what killed processes left behind; --fix mends it
    e2h ui

Errors are one line on stderr and a nonzero status. Commands import their dependencies when they
run, so that `e2h --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.home import HomeError, home, writable
from e2h_pipeline.artifacts.manifest import ManifestError
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.tables import TableError
from e2h_pipeline.cli.compare import compare
from e2h_pipeline.cli.data import data
from e2h_pipeline.cli.doctor import doctor
from e2h_pipeline.cli.dry_run import dry_run
from e2h_pipeline.cli.exchange import export, import_
from e2h_pipeline.cli.grading import grade, rerank
from e2h_pipeline.cli.init import init
from e2h_pipeline.cli.judging import judge, score
from e2h_pipeline.cli.label import label
from e2h_pipeline.cli.plan import plan
from e2h_pipeline.cli.recipes import recipes
from e2h_pipeline.cli.shared import (
    AllowLeaks,
    CommandError,
    Json,
    check_selection,
    checked_key,
    drop_output,
    known_key,
    opened_experiments,
    own_streams,
    print_json,
    quiet_libraries,
    refuse_leaks,
)
from e2h_pipeline.cli.store import diff, gc, verify
from e2h_pipeline.cli.sweep import sweep
from e2h_pipeline.recipe import DEFAULT_KEY, RecipeError
from e2h_pipeline.stages.names import NAMES
from e2h_pipeline.sweeps.spec import SweepError

if TYPE_CHECKING:
    from e2h_pipeline.orchestration.experiments import Experiments

_HELP = "Run experiments, read their numbers, and trace their inputs."

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

_INTERRUPTED = 130  # what shells report for Ctrl-C

Key = Annotated[str, typer.Argument(help="Recipe name plus overrides: ladder/rl.updates=50/seed=1")]


def main() -> None:
    """Entry point: user errors become one line and status 1."""
    try:
        own_streams()
        _run_app()
    except RecipeError as error:
        _fail(*map(str, error.args))
    except (SweepError, StoreError, ManifestError, TableError, CommandError, HomeError) as error:
        _fail(str(error))
    except OSError as error:  # a full disk, a folder that can only be read, a device that is gone
        drop_output()
        _fail(
            f"{error.filename}: {error.strerror}" if error.filename else f"output: {error.strerror or error}"
        )
    except KeyboardInterrupt:
        _fail("stopped", status=_INTERRUPTED)


def _run_app() -> None:
    """Run the command, and write all its output: at the end of the process it is too late for errors."""
    try:
        app()
    finally:
        sys.stdout.flush()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"e2h_pipeline {version('e2h-pipeline')}")
        raise typer.Exit


@app.callback(help=_HELP)
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What is said before a command."""


@app.command()
def run(
    key: Key = DEFAULT_KEY,
    select: Annotated[
        str | None,
        typer.Option(help="Assets such as 'easy_evaluator,rerank_scores+'. x+ adds dependents, +x inputs."),
    ] = None,
    only_tell: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only tell what would be made and reused, what is missing, how long it takes."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="--dry-run: JSON instead of a table.")] = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Materialize an experiment; existing artifacts are reused."""
    key = checked_key(key)
    check_selection(select)
    quiet_libraries()
    if only_tell:
        dry_run(key, select, as_json)
        return
    from e2h_pipeline.cli.view import StageLines, own_terminal, print_results
    from e2h_pipeline.evaluation.results import select as best_known
    from e2h_pipeline.operations.runner import RunError, RunStopped, run_experiment

    with own_terminal() as out:
        out.print(f"[bold]{key}[/bold] in {home()}", soft_wrap=True)
        try:
            with StageLines(out) as progress:
                run_experiment(key, home(), select, progress.watch)
        except RunError as error:
            raise CommandError(str(error)) from None
        except RunStopped as error:
            _fail(str(error), status=_INTERRUPTED)
    with opened_experiments() as experiments:
        rows = experiments.results(key) if experiments.metrics_artifact(key) is not None else []
    print_results(best_known(rows))
    refuse_leaks(_leaks(rows), allow_leaks)


@app.command()
def results(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Recipe keys; without any, all with results.")
    ] = None,
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="Include every N and single levels.")] = False,
    pool: Annotated[
        bool,
        typer.Option(help="Means over the seeds of each recipe, with intervals over seeds and problems."),
    ] = False,
    steps: Annotated[
        bool, typer.Option(help="What the evaluator is worth on steps that people labelled.")
    ] = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Accuracy of every policy and method, with intervals."""
    from e2h_pipeline.cli.view import print_pooled, print_results
    from e2h_pipeline.evaluation.results import select

    with opened_experiments() as experiments:
        if steps:
            chosen = [known_key(experiments, key) for key in keys or []] or experiments.keys_with_steps()
            _show_steps(experiments, chosen, pool, everything, as_json, allow_leaks)
            return
        chosen = [known_key(experiments, key) for key in keys or []] or experiments.keys()
        if pool and chosen:
            found = experiments.pooled(chosen)
            if as_json:
                print_json({"results": found.rows, "differences": found.differences})
            else:
                print_pooled(found.rows if everything else select(found.rows), found.differences)
            refuse_leaks(_leaks(found.rows), allow_leaks)
            return
        rows = [row for key in chosen for row in experiments.results(key)]
    if as_json:
        print_json(rows)
    elif not rows:
        raise CommandError("no experiment has results yet; run: e2h run")
    else:
        print_results(rows if everything else select(rows))
    refuse_leaks(_leaks(rows), allow_leaks)


def _show_steps(
    experiments: Experiments, keys: list[str], pool: bool, everything: bool, as_json: bool, allow_leaks: bool
) -> None:
    from e2h_pipeline.cli.view import print_steps

    if not keys:
        raise CommandError("no experiment was judged on steps that people labelled (human_steps.sources)")
    rows = experiments.pooled_steps(keys) if pool else [r for key in keys for r in experiments.steps(key)]
    if as_json:
        print_json(rows)
    else:
        print_steps(rows, everything)
    refuse_leaks(_leaks(rows), allow_leaks)


@app.command()
def lineage(key: Key = DEFAULT_KEY, as_json: Json = False, allow_leaks: AllowLeaks = False) -> None:
    """Trace each benchmark number back to its easy data version."""
    from e2h_pipeline.cli.view import print_lineage
    from e2h_pipeline.orchestration.experiments import tree

    with opened_experiments() as experiments:
        key = known_key(experiments, key)
        found = experiments.lineage(key)
        node = tree(experiments, key)
    if as_json:
        print_json(found)
    else:
        print_lineage(found, node)
    refuse_leaks(found["leaks"], allow_leaks)


@app.command()
def inspect(
    asset: Annotated[str, typer.Argument(help="Asset name, such as sft_policy.")],
    key: Annotated[str, typer.Option(help="Recipe key.")] = DEFAULT_KEY,
    as_json: Json = False,
) -> None:
    """The manifest of an artifact: its code, inputs, hashes and cost."""
    from e2h_pipeline.cli.view import print_manifest

    with opened_experiments() as experiments:
        artifact = experiments.artifact(_asset_name(asset, experiments), known_key(experiments, key))
    manifest = {"path": str(artifact.path), **artifact.manifest.model_dump(mode="json")}
    if as_json:
        print_json(manifest)
    else:
        print_manifest(manifest)


@app.command()
def report(
    key: Key = DEFAULT_KEY,
    index: Annotated[
        bool, typer.Option("--index", help="The page over all experiments of the home instead.")
    ] = False,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Put the report page into E2H_HOME/reports and print its path.

    In a home that can only be read, print its path in the store.
    """
    if index:
        _write_index()
        return
    from e2h_pipeline.orchestration.experiments import report_page
    from e2h_pipeline.report.html import with_leaks
    from e2h_pipeline.report.lineage_view import with_links
    from e2h_pipeline.stages.words import REPORT_STAGE
    from resources.links import dagster_link, mlflow_link

    with opened_experiments() as experiments:
        key = known_key(experiments, key)
        page = report_page(experiments.artifact(REPORT_STAGE, key).path)
        standing = experiments.standing(key)
    target = home() / "reports" / f"{key.replace('/', '__')}.html"
    if writable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        marked = with_leaks(
            page.read_text(encoding="utf-8"), standing.leaks, standing.outdated, standing.strict
        )
        links = {
            name: partial(link, home()) for name, link in (("dagster", dagster_link), ("mlflow", mlflow_link))
        }
        target.write_text(with_links(marked, links), encoding="utf-8")
        typer.echo(target)
    else:  # the page of the store has no marks
        typer.echo(page)
        if standing.outdated:
            typer.echo(f"e2h: {standing.outdated}", err=True)
    refuse_leaks(standing.leaks, allow_leaks)


def _write_index() -> None:
    from datetime import datetime

    from e2h_pipeline.operations.index import write_index

    if not writable(home() / "reports"):
        raise CommandError(f"{home() / 'reports'} cannot be written")
    with opened_experiments() as experiments:
        typer.echo(write_index(experiments, datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")))


app.add_typer(data, name="data")
app.command()(init)
app.command()(recipes)
app.command()(plan)
app.command()(sweep)
app.command()(diff)
app.command()(compare)
app.command()(verify)
app.command()(gc)
app.command()(grade)
app.command()(rerank)
app.command()(score)
app.command()(judge)
app.command()(label)
app.command()(doctor)
app.command()(export)
app.command("import")(import_)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Dagster's port.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port.")] = 5000,
) -> None:
    """Dagster's and MLflow's web pages, on this machine only; Ctrl-C stops both."""
    typer.echo(f"loading Dagster; its page and MLflow's, of {home()}, take up to a minute")
    from e2h_pipeline.operations.ui import UiError, serve

    try:
        serve(home(), port, mlflow_port, typer.echo)
    except UiError as error:
        raise CommandError(str(error)) from None


def _leaks(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [leak for row in rows for leak in row["leaks"]]


def _asset_name(name: str, experiments: Experiments) -> str:
    known = sorted(NAMES)
    if name not in known and not (experiments.store.root / name).is_dir():  # it may be of an earlier version
        raise CommandError(f"no asset '{name}'; there are: {', '.join(known)}")
    return name


def _fail(*messages: str, status: int = 1) -> None:
    for message in messages:
        # Messages may quote a file's text: strip terminal control characters.
        line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
        typer.echo(f"e2h: {line}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
