"""JSON lines files, plain or gzipped, with errors that name file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from e2h_pipeline.problems.records import ProblemError

T = TypeVar("T")


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, record) of every line that is not blank.

    Raises:
        ProblemError: no such file, damaged gzip or UTF-8, or a line that is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            yield from read_records(file, path)
    except FileNotFoundError:
        raise ProblemError(f"{path}: no such file") from None


def read_records(file: IO[bytes], name: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_jsonl` from an open file or pipe; gzipped if `name`, which errors tell, ends in .gz."""
    for number, line in _lines(file, name):
        yield number, _record(line, name, number)


def parse_each(path: Path, parse: Callable[[dict[str, Any], Path, int], T]) -> Iterator[T | BadLine]:
    """`parse(record, path, line number)` of every line that is not blank, one after the other.

    A line that is no JSON object, or that `parse` refuses with a ProblemError, comes as a `BadLine`: files
    of labels are large and other people's, and one bad line is no reason to throw the rest away.

    Raises:
        ProblemError: no such file, or damaged gzip.
    """
    try:
        with path.open("rb") as file:
            for number, line in _lines(file, path):
                try:
                    parsed: T | BadLine = parse(_record(line, path, number), path, number)
                except ProblemError as error:
                    reason = str(error).removeprefix(f"{path}:{number}: ")
                    parsed = BadLine(path.name, number, reason)
                yield parsed
    except FileNotFoundError:
        raise ProblemError(f"{path}: no such file") from None


def _lines(file: IO[bytes], name: Path | str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank."""
    number = 0
    try:
        lines = gzip.GzipFile(fileobj=file) if str(name).endswith(".gz") else file
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ProblemError(
            f"{name}: damaged after line {number} ({error}); fetch the file again or unpack it to .jsonl"
        ) from None


def field(record: dict[str, Any], name: str, kind: type, path: Path | str, line: int) -> Any:
    """A field that must be there and be of one type.

    Raises:
        ProblemError: it is missing or of another type.
    """
    if name not in record:
        raise ProblemError(
            f"{path}:{line}: no field '{name}'; there are {', '.join(sorted(record)) or 'none'}"
        )
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ProblemError(f"{path}:{line}: '{name}' must be {kind.__name__}, not {type(value).__name__}")
    return value


def _record(line: bytes, path: Path | str, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ProblemError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{path}:{number}: not JSON ({error}); mend or delete the line") from None
    if not isinstance(record, dict):
        raise ProblemError(f"{path}:{number}: a line must be a JSON object, not {type(record).__name__}")
    return record
