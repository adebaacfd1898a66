"""The evaluator that a command names: an experiment's key, or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, quiet_libraries
from e2h_pipeline.recipe import Recipe, RecipeError, canonical_key

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.outside.step_lines import Numbered
    from e2h_pipeline.generation.search.protocol import Scorer
    from e2h_pipeline.problems.domain import Domain

EVALUATOR_HELP = "An experiment's key (its easy_evaluator), or a folder."
EvaluatorName = Annotated[str | None, typer.Option("--evaluator", help=EVALUATOR_HELP)]
DomainName = Annotated[
    str | None,
    typer.Option("--domain", help="How solutions are written. Default: the key's domain, else math."),
]
_DOMAIN = "math"


@dataclass(frozen=True)
class FoundEvaluator:
    """An evaluator to score with.

    Attributes:
        name: as it was asked for.
        version: digest of what scores.
        open: makes its scorer.
        folder, labels: its artifact and its easy_step_labels; None where it is no experiment's.
        standing: whether its numbers count: strict, leaks.
    """

    name: str
    version: str
    domain: Domain
    open: Callable[[], Scorer]
    folder: Path | None = None
    labels: Path | None = None
    standing: dict[str, Any] = field(default_factory=dict)


def find_evaluator(name: str, domain: str | None) -> FoundEvaluator:
    """A folder of this name, else the experiment of this key.

    Raises:
        CommandError: there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return _of_folder(name, folder, domain_of(domain))
    try:
        recipe = Recipe.from_key(canonical_key(name), recipe_folders(home()))
    except RecipeError as error:
        raise CommandError(f"{name}: no such folder, and no experiment's key ({error})") from None
    return _of_key(canonical_key(name), domain_of(domain or recipe.problems.source))


def domain_of(word: str | None) -> Domain:
    """The domain of a word, `math` where there is none.

    Raises:
        CommandError: no such domain.
    """
    from e2h_pipeline.registry import DOMAINS

    if word is not None and word not in DOMAINS.words():
        raise CommandError(f"no domain '{word}'; there are: {', '.join(DOMAINS.words())}")
    found: Domain = DOMAINS.load(word or _DOMAIN)
    return found


def _of_folder(name: str, folder: Path, domain: Domain) -> FoundEvaluator:
    from e2h_pipeline.rewards.step_scorer import StepScorer

    return FoundEvaluator(name, _state(folder, domain), domain, lambda: StepScorer(folder, domain.text))


def _of_key(key: str, domain: Domain) -> FoundEvaluator:
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.instance import open_to_read
    from e2h_pipeline.rewards.step_scorer import StepScorer

    with open_to_read(home()) as instance:
        evaluator, labels, standing = Experiments(instance, ArtifactStore(home())).evaluator(key)
    return FoundEvaluator(
        key,
        digest_json([evaluator.manifest.data_version, domain.name]),
        domain,
        lambda: StepScorer(evaluator.path, domain.text),
        evaluator.path,
        labels.path if labels else None,
        standing.as_row(),
    )


def _state(folder: Path, domain: Domain) -> str:
    """Digest of the names, sizes and times of a folder's files: reading weights would take minutes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return digest_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats] + [domain.name])


@contextmanager
def scorer(found: FoundEvaluator) -> Iterator[Scorer]:
    """The evaluator's scorer, freed at the end.

    Raises:
        CommandError: the evaluator cannot be loaded.
    """
    quiet_libraries()
    opened = found.open()
    try:
        try:
            opened.step_probabilities([])  # loads it
        except (ValueError, OSError) as error:
            raise CommandError(f"{found.name}: {error}") from None
        yield opened
    finally:
        opened.close()


@contextmanager
def scored(
    records: Iterator[Numbered], name: str, found: FoundEvaluator, stream: IO[bytes]
) -> Iterator[Iterator[Numbered]]:
    """Lines of a file with scores, with progress."""
    from e2h_pipeline.cli.grading_view import LineProgress
    from e2h_pipeline.evaluation.outside.step_lines import score_lines

    with scorer(found) as asked, LineProgress(name, stream) as progress:

        def lines() -> Iterator[Numbered]:
            for batch in score_lines(records, name, asked, found.domain, found.version):
                yield from batch
                progress.advance(len(batch))

        yield lines()
