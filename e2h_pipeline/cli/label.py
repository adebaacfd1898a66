"""`e2h label`: a local page on which people label steps, one key each."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError

if TYPE_CHECKING:
    from e2h_pipeline.supervision.queue import Queue


def label(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines with question, and steps or completion. Without it, samples of --key."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="An experiment: its easy samples, or of FILE only solutions of its easy problems."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Finished solutions, in PRM800K's format.")] = Path(
        "people.jsonl"
    ),
    count: Annotated[int, typer.Option(min=1, help="Samples of --key to label.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the choice of samples.")] = 0,
    labeller: Annotated[str, typer.Option(help="Your name in the export; random where empty.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine only; 0: any.")] = 8400,
) -> None:
    """Label steps of solutions by keyboard on a local page; go on where you stopped."""
    from e2h_pipeline.artifacts.locks import free_lock
    from e2h_pipeline.operations.label_page import PageError, serve
    from e2h_pipeline.problems.records import ProblemError
    from e2h_pipeline.supervision.sessions import SUFFIX, Session

    try:
        queue = _queue(file, key, count, seed)
        for reason, left in queue.left_out.items():
            typer.echo(f"{left:,} solutions left out: {reason}")
        out.parent.mkdir(parents=True, exist_ok=True)
        with free_lock(out.with_name(f"{out.name}{SUFFIX}.lock")) as lock:
            if lock is None:
                raise CommandError(
                    f"{out}: another e2h label writes it; stop that one or choose another --out"
                )
            with closing(Session(out, queue, labeller)) as session:
                done = len(session.finished)
                typer.echo(
                    f"{done:,} of {len(queue.items):,} solutions are labelled; the labels are in {out}"
                )
                serve(session, port, lambda address: typer.echo(f"{address}\nCtrl-C stops; nothing is lost."))
    except (ProblemError, PageError) as error:
        raise CommandError(str(error)) from None


def _queue(file: Path | None, key: str | None, count: int, seed: int) -> Queue:
    """What is to be labelled."""
    from e2h_pipeline.supervision.queue import queue_of_file

    if key is not None:
        return _of_experiment(file, key, count, seed)
    if file is None:
        raise CommandError("name a FILE of solutions, or an experiment with --key")
    return queue_of_file(file)


def _of_experiment(file: Path | None, key: str, count: int, seed: int) -> Queue:
    """Samples of an experiment's easy problems, or solutions of a file to them."""
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.reading import open_ledger
    from e2h_pipeline.recipe import Recipe, one_spelling
    from e2h_pipeline.registry import DOMAINS
    from e2h_pipeline.supervision.queue import EasyProblems, queue_of_file, queue_of_samples

    key = one_spelling(key, recipe_folders(home()))
    domain = DOMAINS.load(Recipe.from_key(key, recipe_folders(home())).problems.source)
    with open_ledger(home()) as ledger:
        experiments = Experiments(ledger, ArtifactStore(home()))
        problems = experiments.artifact("easy_problems", key)
        easy = EasyProblems.of(problems.path, domain.supervisable, domain.text)
        if file is not None:
            return queue_of_file(file, easy)
        samples = experiments.artifact("easy_samples", key)
        source = f"{key} {samples.asset} {samples.data_version[:12]}"
        return queue_of_samples(samples.path / "data", easy, source, count, seed)
