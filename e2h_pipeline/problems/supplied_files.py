"""What is there of files that other people supply: labels and solutions of easy problems, as their
sources name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from e2h_pipeline.problems.files import SourceState, file_hashes, look_at_files


class Supplied(Protocol):
    """The part of a source that says which files it reads (`e2h_pipeline/supervision/source.py`).
    A subclass without files need not define these methods."""

    def files(self, options: Any) -> list[Path]:
        """The files that the source reads, for the watching sensor and for the key; [] without
        files.

        Args:
            options: the section of the recipe that names this source.

        Raises:
            ProblemError: their place is not configured, or they are missing.
        """
        return []

    def read(self, options: Any) -> object:
        """Read all files once, so that unreadable ones are found before they are used.

        Raises:
            ProblemError: they cannot be used; the message names file, line or field and the mend.
        """
        return None


def look_at_supplied(section: str, sources: Sequence[tuple[Supplied, Any]]) -> SourceState:
    """The state of the files of all sources of a section of the recipe. Nothing is raised.

    Files keep their names where there is one source. Where there are several, its place and word
    come first.

    Args:
        section: `labels` or `solutions`.
        sources: each source with its options.
    """
    states = [_look(section, source, options) for source, options in sources]
    for state in states:
        if state.error or len(states) == 1:
            return state
    names = [f"{place} {options.source}: " for place, (_, options) in enumerate(sources)]
    named = list(zip(names, states, strict=True))
    return SourceState(
        parts={name + file: part for name, state in named for file, part in state.parts.items()},
        sizes={name + file: size for name, state in named for file, size in state.sizes.items()},
        modified={name + file: time for name, state in named for file, time in state.modified.items()},
    )


def _look(section: str, source: Supplied, options: Any) -> SourceState:
    return look_at_files(
        lambda: source.files(options),
        lambda: file_hashes(source.files(options)) or {"made here": options.source},
        lambda: source.read(options),
        f"{section} {options.source}",
    )
