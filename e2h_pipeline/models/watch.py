"""Whether a local base model has changed. A module of its own: it watches, and shapes no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.models.base import local_folder
from e2h_pipeline.problems.files import SourceState

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base


def look_at_model(options: Base) -> SourceState:
    """The state of a local model, by size and time of its files. Nothing is raised.

    Hashing gigabytes every minute would cost too much. A changed time only makes `base_model`
    again, which hashes the files and finds that nothing is new.
    """
    folder = local_folder(options)
    if folder is None:
        if not options.train and options.model.startswith(("/", ".")):
            return SourceState(
                error=f"base.model {options.model}: no such folder; put it back or name another"
            )
        there = (
            {"made here": "trained"} if options.train else {options.model: options.revision or "not pinned"}
        )
        return SourceState(parts=there)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        stats = {path.name: path.stat() for path in files}
        parts = {name: f"{seen.st_size}-{seen.st_mtime_ns}" for name, seen in stats.items()}
        return SourceState.of_files(files, parts)
    except OSError as error:
        return SourceState(
            error=f"base.model {folder}: cannot be read ({error.strerror or error}); put it back"
        )
