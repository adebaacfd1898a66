"""Check the store against its manifests: hash every file again, as fast as disk and cores go.

Files that several artifacts share by hard links are read once. Hashing releases the interpreter's
lock, so threads are enough. Nothing is changed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from e2h_pipeline.artifacts.inventory import Entry, Inventory, Place, take_inventory, with_ancestors
from e2h_pipeline.artifacts.manifest import MANIFEST_NAME
from e2h_pipeline.artifacts.request import manifest_damage
from e2h_pipeline.artifacts.store import ArtifactStore

Kind = Literal["damaged", "missing", "extra", "foreign", "manifest", "input", "event"]

_BLOCK = 1 << 20
_TASK_BYTES, _TASK_FILES = 4 << 20, 64  # small files per task, at most
_REPORT_SECONDS = 0.25


@dataclass(frozen=True)
class StoreFinding:
    """A problem: its kind, its place, and a description.

    Kinds: `damaged` (a file does not match its hash), `missing` (a file is gone), `extra` (a file
    that no manifest names), `foreign` (in the store, but not an artifact), `manifest` (contradicts
    itself), `input` (an input is gone or has other content), `event` (a record of Dagster without
    an artifact).
    """

    kind: Kind
    where: str
    message: str


@dataclass
class Verification:
    """What was checked, and the findings. `bytes` were read; `seconds` is wall time."""

    artifacts: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    findings: list[StoreFinding] = field(default_factory=list)


@dataclass
class _File:
    """One file on disk, under all the names that manifests have for it: artifact, path and hash."""

    size: int
    names: list[tuple[Path, Path, str]] = field(default_factory=list)


def verify_store(
    store: ArtifactStore,
    places: Collection[Place] | None = None,
    progress: Callable[[int, int, float], None] = lambda _done, _total, _seconds: None,
    threads: int = 0,
) -> Verification:
    """Check artifacts against their manifests, and manifests against each other.

    Args:
        places: only these artifacts and their ancestors; the whole store where None.
        progress: called a few times a second with bytes read, total bytes and seconds since the
            start.
        threads: 0 for one per core.
    """
    started = time.monotonic()
    inventory = take_inventory(store)
    chosen = sorted(inventory.entries if places is None else with_ancestors(inventory, places))
    entries = [inventory.entries[place] for place in chosen]
    result = Verification(artifacts=len(entries))
    files: dict[tuple[int, int], _File] = {}
    for entry in entries:
        result.findings.extend(_manifest_findings(entry, inventory))
        result.findings.extend(_file_findings(entry, files))
    if places is None:
        result.findings.extend(
            StoreFinding("foreign", str(path), why)
            for path, why in inventory.foreign.items()
            if path.exists()
        )
    result.findings = [f for f in result.findings if f.kind != "input" or Path(f.where).exists()]
    result.files, result.bytes = len(files), sum(file.size for file in files.values())
    for finding in _hash_all(list(files.values()), result.bytes, progress, threads or os.cpu_count() or 1):
        result.findings.append(finding)
    result.seconds = time.monotonic() - started
    return result


def _manifest_findings(entry: Entry, inventory: Inventory) -> Iterator[StoreFinding]:
    where = str(entry.path / MANIFEST_NAME)
    damage = manifest_damage(entry.manifest)
    if damage:
        yield StoreFinding("manifest", where, damage)
    for place, ref in entry.inputs():
        parent = inventory.entries.get(place)
        if parent is None or parent.manifest.key != ref.key:
            yield StoreFinding(
                "input", where, f"made from {place[0]} {place[1]}, which is gone from the store"
            )
        elif parent.manifest.data_version != ref.data_version:
            yield StoreFinding(
                "input", where, f"{place[0]} {place[1]} was made again since, with other content"
            )


def _file_findings(entry: Entry, files: dict[tuple[int, int], _File]) -> Iterator[StoreFinding]:
    """Findings from the listing of a folder; files to be hashed are added to `files`."""
    listed = dict(_walk(str(entry.path), ""))
    if not listed and not entry.path.exists():
        return  # removed by garbage collection in between
    for name, expected in entry.manifest.files.items():
        found = listed.pop(name, None)
        path = entry.path / name
        if found is None:
            yield StoreFinding("missing", str(path), "missing from the artifact")
            continue
        stat = found.stat(follow_symlinks=False)
        if stat.st_size != expected.size:
            yield StoreFinding("damaged", str(path), f"has {stat.st_size} bytes, not {expected.size}")
            continue
        file = files.setdefault((stat.st_dev, found.inode()), _File(stat.st_size))
        file.names.append((entry.path, path, expected.sha256))
    listed.pop(MANIFEST_NAME, None)
    for name in listed:
        yield StoreFinding("extra", str(entry.path / name), "no manifest names it")


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All entries below a folder, by relative name, except folders; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


class _Counter:
    """Bytes that all threads have read so far; each adds to its own slot, so no thread waits."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}

    def add(self, task: int, count: int) -> None:
        self._slots[task] = self._slots.get(task, 0) + count

    def total(self) -> int:
        return sum(list(self._slots.values()))


def _hash_all(
    files: list[_File], total: int, progress: Callable[[int, int, float], None], threads: int
) -> Iterator[StoreFinding]:
    started, counter = time.monotonic(), _Counter()
    with ThreadPoolExecutor(threads) as pool:
        waiting: set[Future[list[StoreFinding]]] = {
            pool.submit(_check, task, number, counter) for number, task in enumerate(_tasks(files))
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_REPORT_SECONDS)
                for future in done:
                    yield from future.result()
                progress(counter.total(), total, time.monotonic() - started)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _tasks(files: list[_File]) -> Iterator[list[_File]]:
    """Files in portions that are worth a task, large ones first so that none is left for the
    end."""
    portion: list[_File] = []
    size = 0
    for file in sorted(files, key=lambda file: -file.size):
        portion.append(file)
        size += file.size
        if size >= _TASK_BYTES or len(portion) >= _TASK_FILES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _check(files: list[_File], task: int, counter: _Counter) -> list[StoreFinding]:
    buffer = memoryview(bytearray(min(_BLOCK, max(file.size for file in files) + 1)))
    return [finding for file in files for finding in _check_one(file, task, counter, buffer)]


def _check_one(file: _File, task: int, counter: _Counter, buffer: memoryview) -> Iterator[StoreFinding]:
    present = [name for name in file.names if name[0].exists()]  # others were removed in between
    if not present:
        return
    path = present[0][1]
    digest = hashlib.sha256()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while count := os.readv(handle, [buffer]):
                digest.update(buffer[:count])
                counter.add(task, count)
        finally:
            os.close(handle)
    except OSError as error:
        yield StoreFinding("damaged", str(path), f"cannot be read ({error.strerror})")
        return
    found = digest.hexdigest()
    for _, path, expected in present:
        if found != expected:
            yield StoreFinding("damaged", str(path), f"does not match its hash in {MANIFEST_NAME}")
