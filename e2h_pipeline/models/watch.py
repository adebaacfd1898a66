"""Whether a local base model has changed. A module of its own: it watches, and shapes no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.models.base import local_source
from e2h_pipeline.models.gguf import full_name, gguf_of
from e2h_pipeline.problems.files import SourceState

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base


def look_at_model(options: Base) -> SourceState:
    """The state of a local model, by size and time of its files. Nothing is raised.

    Hashing gigabytes every minute would cost too much. A changed time only makes `base_model`
    again, which hashes the files and finds that nothing is new.
    """
    source = local_source(options)
    if source is None:
        if not options.train and options.model.startswith(("/", ".")):
            kind = "file" if gguf_of(options) else "folder"
            error = f"base.model {full_name(options)}: no such {kind}; put it back or name another"
            return SourceState(error=error)
        there = (
            {"made here": "trained"} if options.train else {options.model: options.revision or "not pinned"}
        )
        return SourceState(parts=there)
    try:
        found = [source] if source.is_file() else source.iterdir()
        files = sorted(path for path in found if path.is_file())
        stats = {path.name: path.stat() for path in files}
        parts = {name: f"{seen.st_size}-{seen.st_mtime_ns}" for name, seen in stats.items()}
        return SourceState.of_files(files, parts)
    except OSError as error:
        return SourceState(
            error=f"base.model {source}: cannot be read ({error.strerror or error}); put it back"
        )
