"""Data files that are not ours and may change at any time: their state, and hashes that are cheap
to ask for again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from e2h_pipeline.artifacts.hashing import digest_json, remembered_hash
from e2h_pipeline.problems.records import ProblemError


@dataclass(frozen=True)
class SourceState:
    """What a look at a source finds.

    Attributes:
        parts: name of a file or Hub data set to SHA-256 or commit; empty where the source cannot be
            used.
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


def data_folder(name: str) -> Path | None:
    """The folder of this name in E2H_DATA_DIR, whether it is there or not; None where that is not
    set."""
    data = os.environ.get("E2H_DATA_DIR")
    return Path(data) / name if data else None


def parts_folder(path: str | None, source: str, parts: Sequence[str]) -> Path:
    """The folder of a domain's files: `problems.path`, or that of the domain in E2H_DATA_DIR.

    Args:
        source: name of the domain, and of its folder.
        parts: names of its files, for the error.

    Raises:
        ProblemError: no place is configured.
    """
    folder = Path(path) if path else data_folder(source)
    if folder is None:
        raise ProblemError(
            f"problems.source is {source}, but there is no data: set problems.path to a folder with"
            f" {', '.join(parts)} (.jsonl or .jsonl.gz), or E2H_DATA_DIR to its parent, or problems.hub"
        )
    return folder


def part_file(folder: Path, part: str) -> Path:
    """`part.jsonl.gz` or `part.jsonl` of a folder.

    Raises:
        ProblemError: there is neither.
    """
    for path in (folder / f"{part}.jsonl.gz", folder / f"{part}.jsonl"):
        if path.is_file():
            return path
    raise ProblemError(
        f"{folder}: no {part}.jsonl or {part}.jsonl.gz; set problems.path to the folder that has it"
    )


def known_file(folder: str, names: Iterable[str]) -> Path | None:
    """The first of some files that is in a folder of E2H_DATA_DIR; None where there is none."""
    place = data_folder(folder)
    return next((place / name for name in names if (place / name).is_file()), None) if place else None


def file_hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by name: `remembered_hash`, for files of data.

    Raises:
        ProblemError: one cannot be read.
    """
    hashes = {}
    for path in files:
        try:
            hashes[path.name] = remembered_hash(path)
        except OSError as error:
            raise ProblemError(
                f"{path}: cannot be read ({error.strerror or error}); mend its permissions or put the file back"
            ) from None
    return hashes


def look_at_files(
    find: Callable[[], Sequence[Path]],
    fingerprint: Callable[[], dict[str, str]],
    read: Callable[[], object],
    asked: str,
) -> SourceState:
    """The state of a source. New content of files is read through once, so that unreadable content
    is known before anything is made of it. Nothing is raised: a source that is gone is a state too.

    Args:
        find: the files, none where nothing is read from files.
        fingerprint: the parts of the state.
        read: reads all of it.
        asked: names `read` and what it depends on besides the files. Equal files are read once for
            each.
    """
    try:
        files, parts = find(), fingerprint()
        named = " ".join([asked, *map(str, files)])
        error = _why_unreadable(read, named, digest_json(parts)) if files else ""
        return SourceState.of_files(files, parts, error)
    except (ProblemError, OSError) as problem:
        return SourceState(error=str(problem))


_last_read: dict[str, tuple[str, str]] = {}
"""Of all that was read: the version of its content, and why it cannot be read."""


def _why_unreadable(read: Callable[[], object], named: str, version: str) -> str:
    """Why data cannot be read, or nothing; the same content is not read again."""
    if _last_read.get(named, ("", ""))[0] != version:
        try:
            read()
            _last_read[named] = version, ""
        except (ProblemError, OSError) as error:
            _last_read[named] = version, str(error)
    return _last_read[named][1]
