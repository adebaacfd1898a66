"""The evaluator that a command names: an experiment's key, a folder or Hub name, or a specification.

A specification is a .json file. It names a model that others have trained and its layout, with the
layout's options; or several evaluators, of any kind, as an ensemble:

    {"model": "PRIME-RL/EurusPRM-Stage2", "layout": "implicit", "reference": "Qwen/Qwen2.5-Math-7B-Instruct"}
    {"ensemble": ["real-smol/seed=1", {"model": "/models/prm", "layout": "trl"}], "rule": "min"}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.home import home, recipe_folders
from e2h_pipeline.cli.shared import CommandError, quiet_libraries
from e2h_pipeline.recipe import Recipe, RecipeError, one_spelling

if TYPE_CHECKING:
    from e2h_pipeline.evaluation.outside.step_lines import Numbered
    from e2h_pipeline.generation.search.protocol import Scorer
    from e2h_pipeline.problems.domain import Domain

EVALUATOR_HELP = "An experiment's key (its easy_evaluator), a folder, a Hub name, or a .json specification."
EvaluatorName = Annotated[str | None, typer.Option("--evaluator", help=EVALUATOR_HELP)]
DomainName = Annotated[
    str | None,
    typer.Option("--domain", help="How solutions are written. Default: the key's domain, else math."),
]
_DOMAIN = "math"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


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
    """The specification or folder of this name, else the experiment of this key, else the Hub's model.

    Raises:
        CommandError: there is none, or the specification is not one.
    """
    if name.endswith(".json"):
        return _of_specification(name, _read_specification(Path(name)), domain)
    if Path(name).is_dir():
        return _of_folder(name, Path(name), domain_of(domain))
    try:
        recipe = Recipe.from_key(name, recipe_folders(home()))
    except RecipeError as error:
        if not _HUB_NAME.fullmatch(name):
            raise CommandError(f"{name}: no such folder, and no experiment's key ({error})") from None
        try:
            return _of_folder(name, _local(name, None), domain_of(domain))
        except CommandError as missing:
            raise CommandError(f"{missing}, and no experiment's key") from None
    return _of_key(one_spelling(name, recipe_folders(home())), domain_of(domain or recipe.problems.source))


def _read_specification(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(f"{file}: not JSON ({error})") from None


def _of_specification(name: str, found: Any, domain: str | None) -> FoundEvaluator:
    """The evaluator of a specification. A member of an ensemble may be a name, too."""
    if isinstance(found, str):
        return find_evaluator(found, domain)
    if isinstance(found, dict) and isinstance(found.get("ensemble"), list):
        return _of_ensemble(name, found, domain)
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("model", "layout")):
        raise CommandError(f"{name}: a specification has texts 'model' and 'layout', or a list 'ensemble'")
    return _of_layout(name, found, domain_of(domain))


def _of_layout(name: str, found: dict[str, Any], domain: Domain) -> FoundEvaluator:
    from e2h_pipeline.registry import RegistryError
    from e2h_pipeline.rewards.outside.layout import LayoutError
    from e2h_pipeline.rewards.outside.scorer import OutsideScorer, new_layout

    options = {key: value for key, value in found.items() if key not in ("model", "layout", "revision")}
    try:
        layout = new_layout(found["layout"], options)
    except (RegistryError, LayoutError) as error:
        raise CommandError(f"{name}: {error}") from None
    folder = _local(found["model"], found.get("revision"))
    others = [_local(other, None) for other in layout.folders()]
    version = digest_json([found, [_state(place, domain) for place in (folder, *others)]])
    return FoundEvaluator(name, version, domain, lambda: OutsideScorer(folder, layout, others, domain.text))


def _of_ensemble(name: str, found: dict[str, Any], domain: str | None) -> FoundEvaluator:
    from e2h_pipeline.rewards.outside.scorer import RULES, EnsembleScorer

    rule = found.get("rule", "mean")
    if rule not in RULES or set(found) - {"ensemble", "rule"} or len(found["ensemble"]) < 2:
        raise CommandError(
            f"{name}: 'ensemble' names two evaluators or more, and 'rule' is one of {', '.join(RULES)}"
        )
    members = [
        _of_specification(f"{name}, member {i}", one, domain) for i, one in enumerate(found["ensemble"])
    ]
    if len({member.domain.name for member in members}) > 1:
        raise CommandError(
            f"{name}: its members write solutions of different domains; name one with --domain"
        )
    return FoundEvaluator(
        name,
        digest_json([rule, [member.version for member in members]]),
        members[0].domain,
        lambda: EnsembleScorer([member.open() for member in members], rule),
        standing=_together([member.standing for member in members if member.standing]),
    )


def _together(standings: list[dict[str, Any]]) -> dict[str, Any]:
    """What holds of one member's numbers holds of all."""
    if not standings:
        return {}
    return {
        "strict": all(one["strict"] for one in standings),
        "leaks": [leak for one in standings for leak in one["leaks"]],
        "outdated": "; ".join(one["outdated"] for one in standings if one["outdated"]),
    }


def _local(name: str, revision: str | None) -> Path:
    """The folder of this name, or the Hub's files."""
    from e2h_pipeline.rewards.outside.files import local_folder
    from e2h_pipeline.rewards.outside.layout import LayoutError

    try:
        return local_folder(name, revision)
    except LayoutError as error:
        raise CommandError(str(error)) from None


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
    """One of ours, or of a layout that its config.json tells."""
    from e2h_pipeline.rewards.outside.scorer import OutsideScorer, layout_of
    from e2h_pipeline.rewards.step_scorer import StepScorer

    layout, version = layout_of(folder), _state(folder, domain)
    if layout is not None:
        return FoundEvaluator(name, version, domain, lambda: OutsideScorer(folder, layout, (), domain.text))
    return FoundEvaluator(name, version, domain, lambda: StepScorer(folder, domain.text))


def _of_key(key: str, domain: Domain) -> FoundEvaluator:
    from e2h_pipeline.artifacts.store import ArtifactStore
    from e2h_pipeline.orchestration.experiments import Experiments
    from e2h_pipeline.orchestration.reading import open_ledger
    from e2h_pipeline.rewards.step_scorer import StepScorer

    with open_ledger(home()) as ledger:
        evaluator, labels, standing = Experiments(ledger, ArtifactStore(home())).evaluator(key)
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
        CommandError: the evaluator cannot be loaded, or a solution cannot be written in its layout.
    """
    from e2h_pipeline.rewards.outside.layout import LayoutError

    quiet_libraries()
    opened = found.open()
    try:
        try:
            opened.step_probabilities([])  # loads it
        except (ValueError, OSError) as error:
            raise CommandError(f"{found.name}: {error}") from None
        yield opened
    except LayoutError as error:
        raise CommandError(f"{found.name}: {error}") from None
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
