"""Entries that MLflow has not taken, kept as JSON lines in E2H_HOME/mlflow-outbox/ until it does.

One file per run, `<tracking id>.jsonl`: first its destination, then entries in order of time (see
`resources.mlflow_sender`). A living writer holds the file's lock. A file without a lock is
complete, or its writer was killed; such a run is sent too, and ends KILLED. `<tracking id>.sent`
counts sent entries: the next sender resumes there if one is killed. An entry that was sent but not
counted is sent again; MLflow keeps it once.

No secrets are stored: a server's address is kept without its user and password.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

Entry = dict[str, Any]

FOLDER = "mlflow-outbox"
# Points of curves are dropped beyond these limits; a run's beginning and end are always kept.
RUN_BYTES = 8 * 2**20
TOTAL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Waiting:
    """A run that waits to be sent."""

    path: Path
    address: str
    size: int

    @property
    def tracking_id(self) -> str:
        return self.path.stem


class Outbox:
    """The file of one run while its stage runs."""

    def __init__(self, home: Path, tracking_id: str, address: str) -> None:
        folder = home / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._taken = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        self._file = (folder / f"{tracking_id}.jsonl").open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._size = 0
        self.dropped = 0
        self._write({"kind": "to", "address": address})

    def add(self, entry: Entry) -> None:
        """Keep an entry; points of curves only up to the limits."""
        full = self._size > RUN_BYTES or self._taken + self._size > TOTAL_BYTES
        if full and entry["kind"] == "metrics":
            self.dropped += len(entry["points"])
        else:
            self._write(entry)

    def close(self) -> None:
        """Release the file, so that it can be sent."""
        self._file.close()

    def _write(self, entry: Entry) -> None:
        line = json.dumps(entry) + "\n"
        self._file.write(line)
        self._file.flush()  # survives a kill of this process; a power loss may take the last lines
        self._size += len(line)


def waiting(home: Path) -> list[Waiting]:
    """Runs without a living writer, oldest first."""
    found = []
    for path in sorted((home / FOLDER).glob("*.jsonl"), key=lambda path: path.stat().st_mtime):
        with _claimed(path) as file:
            if file is not None:
                first = next(_entries(file), {})
                found.append(Waiting(path, str(first.get("address", "")), path.stat().st_size))
    return found


def send(found: Waiting, apply: Callable[[Entry], None]) -> bool:
    """Send one run, from where an earlier attempt stopped, and delete its file here.

    Args:
        apply: sends one entry to MLflow; its errors end the attempt. The first entry, which opens
            the run, is sent at every attempt; the last one ends the run.

    Returns:
        Whether this call sent it; False if another process holds the file or was faster.
    """
    with _claimed(found.path) as file:
        if file is None:
            return False
        count = found.path.with_suffix(".sent")
        sent = int(count.read_text()) if count.exists() else 0
        entries = list(_entries(file))[1:]
        if entries and entries[-1]["kind"] != "end":  # its writer was killed
            ended = int(found.path.stat().st_mtime * 1000)
            entries.append({"kind": "end", "status": "KILLED", "time": ended, "dropped": 0})
        for number, entry in enumerate(entries):
            if number >= sent or number == 0:
                apply(entry)
                _replace(count, str(number + 1))
        found.path.unlink()
        count.unlink(missing_ok=True)
    return True


@contextmanager
def _claimed(path: Path) -> Iterator[IO[str] | None]:
    """The file, locked; None if another process holds it or has deleted it."""
    try:
        file = path.open("r", encoding="utf-8")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file if path.exists() else None


def _entries(file: IO[str]) -> Iterator[Entry]:
    """All complete lines; a kill may have cut off the last one."""
    for line in file:
        if line.endswith("\n"):
            yield json.loads(line)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def without_login(uri: str) -> str:
    """An address without user and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
