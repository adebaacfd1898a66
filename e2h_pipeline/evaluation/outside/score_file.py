"""Step scores written to a file that survives kills.

Scored lines go to a file beside the result, `.NAME.part`, a batch at a time. After each batch a
journal, `.NAME.part.json`, says how much of it counts and which lines were read. A later call with
the same evaluator truncates the part to that, checks that the input begins with the same lines, and
goes on: batches end at the same lines, so the result is that of a call without a kill. A result whose
name ends in .gz has a gzip member for each batch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.json_text import json_text
from e2h_pipeline.artifacts.locks import free_lock
from e2h_pipeline.evaluation.outside.step_lines import SCORED_BY, STEP_SCORES, Numbered, score_lines
from e2h_pipeline.problems.records import ProblemError

if TYPE_CHECKING:
    from e2h_pipeline.generation.search.protocol import Scorer
    from e2h_pipeline.problems.domain import Domain


@dataclass(frozen=True)
class Journal:
    """What of a part counts.

    Attributes:
        scorer: digest of what scores: evaluator, domain, options.
        lines: input lines whose scores are in the part.
        bytes: of the part that hold them.
        read: digest of these input lines.
    """

    scorer: str
    lines: int = 0
    bytes: int = 0
    read: str = ""


@dataclass(frozen=True)
class Scored:
    """Lines of a batch that are in the file; `reused`: an earlier call wrote them."""

    lines: int
    reused: bool = False


def score_file(
    records: Iterator[Numbered], name: str, out: Path, scorer: Scorer, domain: Domain, made_by: str
) -> Iterator[Scored]:
    """Score lines into a file, which gets its name once all are in it. Yields after each batch.

    Args:
        records: (line number, record), as from `read_records`.
        name: of the input, for errors.
        made_by: digest of the evaluator and its options; another one does not go on with a part.

    Raises:
        ProblemError: a line that cannot be scored, or a part of another input or evaluator.
    """
    part = out.with_name(f".{out.name}.part")
    with free_lock(part.with_name(f"{part.name}.lock")) as handle:
        if handle is None:
            raise ProblemError(f"{out}: another process writes this file; wait for it, or name another")
        journal = read_journal(part, made_by)
        if journal.lines:
            _skip(records, name, journal, part)
            yield Scored(journal.lines, reused=True)
        with part.open("r+b" if journal.bytes else "wb") as sink:
            sink.truncate(journal.bytes)
            sink.seek(journal.bytes)
            for batch in score_lines(records, name, scorer, domain, made_by):
                journal = _append(sink, batch, journal, packed=out.suffix == ".gz")
                _write_journal(part, journal)
                yield Scored(len(batch))
        os.replace(part, out)
        for path in (_journal_of(part), part.with_name(f"{part.name}.lock")):
            path.unlink(missing_ok=True)


def read_journal(part: Path, made_by: str) -> Journal:
    """The journal of a part; a new one where there is nothing to go on with.

    Raises:
        ProblemError: the part was made by another evaluator.
    """
    found = Journal(made_by)
    with suppress(FileNotFoundError, ValueError, TypeError):  # a damaged journal: begin again
        found = Journal(**json.loads(_journal_of(part).read_text(encoding="utf-8")))
        if part.stat().st_size < found.bytes:
            return Journal(made_by)
    if not part.is_file():
        return Journal(made_by)
    if found.scorer != made_by:
        raise ProblemError(f"{part}: unfinished scores of another evaluator or options; delete it")
    return found


def _journal_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _skip(records: Iterator[Numbered], name: str, journal: Journal, part: Path) -> None:
    """Read the lines that are scored, and check that they are the same."""
    read = ""
    for _ in range(journal.lines):
        line = next(records, None)
        read = "" if line is None else _chained(read, line[1])
    if read != journal.read:
        raise ProblemError(f"{name}: not the file whose scores are in {part}; delete that to begin again")


def _chained(read: str, record: dict[str, Any]) -> str:
    """Digest of the lines so far and one more, without what scoring adds."""
    given = {name: value for name, value in record.items() if name not in (STEP_SCORES, SCORED_BY)}
    return hashlib.sha256(f"{read}{digest_json(given)}".encode()).hexdigest()


def _append(sink: IO[bytes], batch: list[Numbered], journal: Journal, packed: bool) -> Journal:
    """Write a batch so that it is on the disk, and return the journal with it."""
    text = "".join(json_text(record) + "\n" for _, record in batch).encode()
    data = gzip.compress(text, mtime=0) if packed else text
    sink.write(data)
    sink.flush()
    os.fsync(sink.fileno())
    read = journal.read
    for _, record in batch:
        read = _chained(read, record)
    return Journal(journal.scorer, journal.lines + len(batch), journal.bytes + len(data), read)


def _write_journal(part: Path, journal: Journal) -> None:
    target = _journal_of(part)
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.write_text(json.dumps(asdict(journal)), encoding="utf-8")
    os.replace(temporary, target)
