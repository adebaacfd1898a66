"""Lock files: one process at a time works on a family of requests."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2h_pipeline.artifacts.request import Request


def lock_is_held(path: Path) -> bool:
    """Whether some process holds a lock file now."""
    try:  # NFS wants a lock to be writable; a home that can only be read has no choice
        handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def locked(path: Path) -> int:
    """Open and lock a lock file; if it was unlinked meanwhile (as unused), take the new one."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_named(handle, path):
            return handle
        os.close(handle)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def free_lock(path: Path) -> Iterator[int | None]:
    """Hold a lock file, without waiting; None where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle if _is_named(handle, path) else None
    except BlockingIOError:
        yield None
    finally:
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def note_inputs(handle: int, request: Request) -> None:
    """Write the keys of the inputs into a lock file: garbage collection spares them."""
    os.ftruncate(handle, 0)
    keys = {asset: ref.key for asset, ref in request.inputs.items()}
    os.pwrite(handle, json.dumps(keys).encode(), 0)
