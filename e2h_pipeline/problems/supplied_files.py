"""Files of step labels, where the supervision comes from files: read, fingerprinted and watched as problems are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.files import SourceState, data_folder, file_hashes, look_at_files
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolutions
    from e2h_pipeline.recipe import Labels

_FROM_FILES = ("prm800k", "shepherd")
_SHEPHERD = ("math-shepherd.jsonl", "math-shepherd.jsonl.gz")


def read_labels(options: Labels) -> LabelledSolutions:
    """The labelled solutions of the recipe's files.

    Raises:
        ProblemError: there are none, or they cannot be used.
    """
    from e2h_pipeline.problems.math.prm800k import read_prm800k
    from e2h_pipeline.problems.math.shepherd import read_shepherd

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
    from e2h_pipeline.problems.math.prm800k import prm800k_files

    if options.source not in _FROM_FILES:
        return []
    if options.source == "prm800k":
        return prm800k_files(Path(options.path) if options.path else None)
    return [Path(options.path) if options.path else _shepherd_file()]


def _shepherd_file() -> Path:
    folder = data_folder("steps")
    found = [folder / name for name in _SHEPHERD if (folder / name).is_file()] if folder else []
    if not found:
        raise ProblemError(
            "labels.source=shepherd needs a file: set labels.path to the .jsonl or .jsonl.gz, or put"
            f" {_SHEPHERD[0]} (peiyi9979/Math-Shepherd on the Hub) into steps/ of E2H_DATA_DIR"
        )
    return found[0]


def label_fingerprint(options: Labels) -> dict[str, str]:
    """SHA-256 of each file that is read; empty where labels are made here.

    Raises:
        ProblemError: no labels.
    """
    return file_hashes(label_files(options))


def look_at_labels(options: Labels) -> SourceState:
    """The state of the files."""
    return look_at_files(
        lambda: label_files(options),
        lambda: label_fingerprint(options) or {"made here": options.source},
        _read,
        options.model_dump_json(),
    )


def _read(options: str) -> None:
    from e2h_pipeline.recipe import Labels

    read_labels(Labels.model_validate_json(options))
