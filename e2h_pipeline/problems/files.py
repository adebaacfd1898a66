"""Data files that are not ours and may change at any time: their state, and hashes that are cheap to ask for again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from e2h_pipeline.artifacts.hashing import digest_json, remembered_hash
from e2h_pipeline.problems.records import ProblemError


@dataclass(frozen=True)
class SourceState:
    """What a look at a source finds.

    Attributes:
        parts: name of a file or Hub data set to SHA-256 or commit; empty where the source cannot be used.
        sizes: bytes of each local file.
        modified: time of the last change of each local file, UTC.
        error: why the source cannot be used, with file, line and mend; empty where it can.
    """

    parts: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    modified: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def of_files(cls, files: Sequence[Path], parts: dict[str, str], error: str = "") -> SourceState:
        """The state of local files: their parts, with sizes and times.

        Raises:
            OSError: one is not there.
        """
        stats = {path.name: path.stat() for path in files}
        return cls(
            parts=parts,
            sizes={name: seen.st_size for name, seen in stats.items()},
            modified={
                name: datetime.fromtimestamp(seen.st_mtime, UTC).isoformat(timespec="seconds")
                for name, seen in stats.items()
            },
            error=error,
        )

    @property
    def version(self) -> str:
        """Hash of the parts: times do not count."""
        return digest_json(self.parts)


def file_hash(path: Path) -> str:
    """`remembered_hash`, for files of data.

    Raises:
        ProblemError: it cannot be read.
    """
    try:
        return remembered_hash(path)
    except OSError as error:
        raise ProblemError(
            f"{path}: cannot be read ({error.strerror or error}); mend its permissions or put the file back"
        ) from None


def file_hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by name.

    Raises:
        ProblemError: one cannot be read.
    """
    return {path.name: file_hash(path) for path in files}


def look_at_files(
    find: Callable[[], Sequence[Path]], read: Callable[[str], object], options: str, without: str
) -> SourceState:
    """The state of files; nothing is raised. New content is read through once, as the stage will read it.

    Args:
        find: the files, none where nothing is read from files.
        read: as of `why_unreadable`.
        options: the section of the recipe that says where they are, as JSON.
        without: what there is instead, where there are none.
    """
    try:
        files = find()
        parts = file_hashes(files) or {"made here": without}
        error = why_unreadable(read, options, digest_json(parts)) if files else ""
        return SourceState.of_files(files, parts, error)
    except (ProblemError, OSError) as problem:
        return SourceState(error=str(problem))


@lru_cache(maxsize=64)
def why_unreadable(read: Callable[[str], object], options: str, _version: str) -> str:
    """Why data cannot be read, or nothing; asked once for each content.

    Args:
        read: reads all of it; a function of a module, so that it is the same one each time.
        options: the section of the recipe that says where it is, as JSON.
        _version: hash of the content.
    """
    try:
        read(options)
    except (ProblemError, OSError) as error:
        return str(error)
    return ""
