"""JSON lines files and JSON arrays, plain or gzipped, with errors that name file and line or
element."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from e2h_pipeline.problems.records import ProblemError

T = TypeVar("T")

_SHOWN_BAD_LINES = 20
_CHUNK = 1 << 20  # characters of an array that are read at once
_LARGEST = 1 << 24  # characters of an element at most, or a broken file would be read whole
_LONGEST_LINE = 1 << 25  # bytes; reading JSON takes many times its size in memory
_SPACE = re.compile(r"[ \t\r\n]*")
_MEND = "not an array of JSON objects; fetch the file again, or call it .jsonl if there is one on each line"
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def told_bad_lines(bad_lines: Sequence[BadLine]) -> dict[str, Any]:
    """How many there are and the first of them in words, for a summary."""
    return {
        "bad_lines": len(bad_lines),
        "first_bad_lines": [str(bad) for bad in bad_lines[:_SHOWN_BAD_LINES]],
    }


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

    A .json file is an array: there it is every element and its number. A line that is no JSON
    object, or that `parse` refuses with a ProblemError, comes as a `BadLine`: such files are large
    and other people's, and one bad line is no reason to throw the rest away.

    Raises:
        ProblemError: no such file, damaged gzip, or an array that is damaged.
    """
    array = path.name.endswith((".json", ".json.gz"))
    try:
        with path.open("rb") as file:
            for number, found in _elements(file, path) if array else _lines(file, path):
                try:
                    record = found if isinstance(found, dict) else _record(found, path, number)
                    parsed: T | BadLine = parse(record, path, number)
                except ProblemError as error:
                    reason = str(error).removeprefix(f"{path}:{number}: ")
                    parsed = BadLine(path.name, number, reason)
                yield parsed
    except FileNotFoundError:
        raise ProblemError(f"{path}: no such file") from None


def _lines(file: IO[bytes], name: Path | str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank; the beginning of one that is too
    long."""
    number = 0
    lines = _unpacked(file, name)
    try:
        while line := lines.readline(_LONGEST_LINE + 1):
            number += 1
            rest = line
            while len(rest) > _LONGEST_LINE and not rest.endswith(b"\n"):
                rest = lines.readline(_LONGEST_LINE + 1)
            if line.strip():
                yield number, line
    except _DAMAGED as error:
        raise ProblemError(
            f"{name}: damaged after line {number} ({error}); fetch the file again or unpack it to .jsonl"
        ) from None


def _elements(file: IO[bytes], name: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of every element of an array, read piece by piece: it may be larger
    than memory."""
    text = io.TextIOWrapper(_unpacked(file, name), encoding="utf-8-sig")
    decode = json.JSONDecoder().raw_decode
    buffer, at, number, expected = "", 0, 0, "["
    while expected and (piece := _piece(text, name, number)):
        buffer, at = buffer[at:] + piece, 0
        while (at := _SPACE.match(buffer, at).end()) < len(buffer):  # type: ignore[union-attr]
            sign = buffer[at]
            if sign == "]" and (expected == "," or (expected == "{" and not number)):
                expected = ""
                break
            if sign != expected:
                raise ProblemError(f"{name}: {sign!r} behind element {number}, not {expected!r}: {_MEND}")
            if sign != "{":
                at, expected = at + 1, "{"
                continue
            try:
                found, at = decode(buffer, at)
            except (ValueError, RecursionError) as error:
                if len(buffer) - at > _LARGEST or isinstance(error, RecursionError):
                    raise ProblemError(
                        f"{name}: element {number + 1} is not JSON ({error}): {_MEND}"
                    ) from None
                break
            number, expected = number + 1, ","
            yield number, found
    if expected:
        raise ProblemError(f"{name}: ends behind element {number}: {_MEND}")


def _piece(text: io.TextIOWrapper, name: Path | str, number: int) -> str:
    try:
        return text.read(_CHUNK)
    except UnicodeDecodeError:
        raise ProblemError(f"{name}: not UTF-8 behind element {number}; save the file as UTF-8") from None
    except _DAMAGED as error:
        raise ProblemError(
            f"{name}: damaged behind element {number} ({error}); fetch the file again"
        ) from None


def _unpacked(file: IO[bytes], name: Path | str) -> IO[bytes]:
    return gzip.GzipFile(fileobj=file) if str(name).endswith(".gz") else file  # type: ignore[return-value]


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
    if len(line) > _LONGEST_LINE:
        raise ProblemError(
            f"{path}:{number}: longer than {_LONGEST_LINE >> 20} MiB; shorten or delete the line"
        )
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ProblemError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{path}:{number}: not JSON ({error}); mend or delete the line") from None
    if not isinstance(record, dict):
        raise ProblemError(f"{path}:{number}: a line must be a JSON object, not {type(record).__name__}")
    return record
