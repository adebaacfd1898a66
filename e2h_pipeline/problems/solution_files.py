"""Files of solutions that a policy is taught, where they are others': found, fingerprinted and watched as labels are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.problems.files import SourceState, data_folder, file_hashes, look_at_files
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Solutions

_PATTERN = "MetaMathQA*.json*"


def solution_files(options: Solutions) -> list[Path]:
    """The files that are read; none where the solutions come with the problems.

    Raises:
        ProblemError: nothing says where they are, or they are not there.
    """
    from e2h_pipeline.problems.math.prm800k import prm800k_files

    if options.source == "reference":
        return []
    path = Path(options.path) if options.path else None
    if options.source == "prm800k":
        return prm800k_files(path, "solutions.path")
    return [path or _metamath_file()]


def _metamath_file() -> Path:
    folder = data_folder("metamath")
    found = sorted(folder.glob(_PATTERN)) if folder else []
    if len(found) != 1:
        where = f"{len(found)} files {_PATTERN} in {folder}" if folder else "E2H_DATA_DIR is not set"
        raise ProblemError(
            f"solutions.source=metamath needs a file and {where}: set solutions.path to it"
            " (MetaMathQA-395K.json of meta-math/MetaMathQA on the Hub)"
        )
    return found[0]


def solution_fingerprint(options: Solutions) -> dict[str, str]:
    """SHA-256 of each file that is read; empty where the solutions come with the problems.

    Raises:
        ProblemError: no files.
    """
    return file_hashes(solution_files(options))


def look_at_solutions(options: Solutions) -> SourceState:
    """The state of the files."""
    return look_at_files(
        lambda: solution_files(options),
        lambda: solution_fingerprint(options) or {"made here": options.source},
        _read,
        options.model_dump_json(),
    )


def _read(options: str) -> None:
    """Read all of it; of MetaMathQA, which is large for a sensor's minute, without taking solutions apart."""
    from e2h_pipeline.problems.jsonl import parse_each
    from e2h_pipeline.problems.math.prm800k import read_prm800k
    from e2h_pipeline.recipe import Solutions

    found = Solutions.model_validate_json(options)
    if found.source == "prm800k":
        read_prm800k(Path(found.path) if found.path else None)
    else:
        for _ in parse_each(solution_files(found)[0], lambda record, path, line: None):
            pass
