"""Whether a local model has changed. A module of its own: it watches, and shapes no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from e2h_pipeline.models.base import local_source
from e2h_pipeline.models.gguf import full_name, gguf_of
from e2h_pipeline.problems.files import SourceState

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Base

_LOCAL = ("/", ".")  # how the name of a folder begins that is no Hub's


def look_at_model(options: Base) -> SourceState:
    """The state of a local model, by size and time of its files. Nothing is raised.

    Hashing gigabytes every minute would cost too much. A changed time only makes `base_model`
    again, which hashes the files and finds that nothing is new.
    """
    source = local_source(options)
    if source is None:
        if not options.train and options.model.startswith(_LOCAL):
            kind = "file" if gguf_of(options) else "folder"
            error = f"base.model {full_name(options)}: no such {kind}; put it back or name another"
            return SourceState(error=error)
        there = (
            {"made here": "trained"} if options.train else {options.model: options.revision or "not pinned"}
        )
        return SourceState(parts=there)
    return _look("base.model", source)


def look_at_sources(field: str, names: Sequence[str]) -> SourceState:
    """The state of files and folders, as `look_at_model`; models of the Hub are not looked at. Nothing
    is raised.

    Args:
        field: of the recipe, for errors.
    """
    found = []
    for name in names:
        if Path(name).exists():
            found.append(_look(field, Path(name)))
        elif name.startswith(_LOCAL):
            return SourceState(error=f"{field} {name}: no such file or folder; put it back or name another")
        else:
            found.append(SourceState(parts={name: "not watched"}))
    if error := next((one.error for one in found if one.error), ""):
        return SourceState(error=error)
    return SourceState(
        parts=_numbered([one.parts for one in found]) or {"made here": "from easy labels"},
        sizes=_numbered([one.sizes for one in found]),
        modified=_numbered([one.modified for one in found]),
    )


T = TypeVar("T")


def _numbered(found: Sequence[Mapping[str, T]]) -> dict[str, T]:
    return {f"{number} {name}": value for number, one in enumerate(found) for name, value in one.items()}


def _look(field: str, source: Path) -> SourceState:
    """The state of a file, or of the files in a folder, by size and time."""
    try:
        found = [source] if source.is_file() else source.iterdir()
        files = sorted(path for path in found if path.is_file())
        stats = {path.name: path.stat() for path in files}
        parts = {name: f"{seen.st_size}-{seen.st_mtime_ns}" for name, seen in stats.items()}
        return SourceState.of_files(files, parts)
    except OSError as error:
        return SourceState(error=f"{field} {source}: cannot be read ({error.strerror or error}); put it back")
