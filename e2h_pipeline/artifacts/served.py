"""The ports at which `e2h ui` serves a home's pages now, for links to them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2h_pipeline.artifacts.locks import lock_is_held

_FILE = "served.json"


@contextmanager
def serving(home: Path, ports: Mapping[str, int]) -> Iterator[None]:
    """Say in a home that this process serves pages, as long as it lives: it locks what it says.

    Args:
        ports: by page, "dagster" and "mlflow".
    """
    handle = os.open(home / _FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(dict(ports)).encode(), 0)
    except BlockingIOError:  # another `e2h ui` of the same home: its pages are as good
        pass
    try:
        yield
    finally:
        os.close(handle)


def served(home: Path) -> dict[str, int]:
    """Page -> its port; nothing where nobody serves."""
    if not lock_is_held(home / _FILE):
        return {}
    try:
        found: dict[str, int] = json.loads((home / _FILE).read_bytes())
    except (OSError, ValueError):  # read while it was written
        return {}
    return found
