"""JSON lines files, plain or gzipped, with errors that name file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from e2h_pipeline.problems.records import ProblemError


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
    number = 0
    try:
        lines = gzip.GzipFile(fileobj=file) if str(name).endswith(".gz") else file
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _record(line, name, number)
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
