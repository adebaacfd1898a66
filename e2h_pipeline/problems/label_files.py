"""Files of step labels, where the supervision comes from files: read, fingerprinted and watched as problems are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.problems.files import SourceState, file_hash, why_unreadable
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.problems.labelled import LabelledSolutions
    from e2h_pipeline.recipe import Labels

_FROM_FILES = ("prm800k", "shepherd")


def read_labels(options: Labels) -> LabelledSolutions:
    """The labelled solutions of the recipe's files.

    Raises:
        ProblemError: there are none, or they cannot be used.
    """
    from e2h_pipeline.problems.prm800k import read_prm800k
    from e2h_pipeline.problems.shepherd import read_shepherd

    files = label_files(options)
    if options.source == "prm800k":
        found = read_prm800k(Path(options.path) if options.path else None)
    else:
        found = read_shepherd(files[0])
    if not found.solutions:
        raise ProblemError(
            f"{', '.join(map(str, files))}: no labels in it; put the data back, or set labels.path"
        )
    return found


def label_files(options: Labels) -> list[Path]:
    """The files that are read; none where labels are made here.

    Raises:
        ProblemError: nothing says where they are, or they are not there.
    """
    from e2h_pipeline.problems.prm800k import prm800k_files

    if options.source not in _FROM_FILES:
        return []
    if options.source == "prm800k":
        return prm800k_files(Path(options.path) if options.path else None)
    if not options.path:
        raise ProblemError("labels.source=shepherd needs a file: set labels.path to the .jsonl or .jsonl.gz")
    return [Path(options.path)]


def label_fingerprint(options: Labels) -> dict[str, str]:
    """SHA-256 of each file that is read; empty where labels are made here.

    Raises:
        ProblemError: no labels.
    """
    return {path.name: file_hash(path) for path in label_files(options)}


def look_at_labels(options: Labels) -> SourceState:
    """The state of the files; nothing is raised. New content is read through once, as the stage will read it."""
    try:
        files = label_files(options)
        parts = label_fingerprint(options) or {"made here": options.source}
        error = why_unreadable(_read, options.model_dump_json(), digest_json(parts)) if files else ""
        return SourceState.of_files(files, parts, error)
    except (ProblemError, OSError) as problem:
        return SourceState(error=str(problem))


def _read(options: str) -> None:
    from e2h_pipeline.recipe import Labels

    read_labels(Labels.model_validate_json(options))
