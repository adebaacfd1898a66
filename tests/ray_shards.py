"""Misbehaving shards for the tests of the Ray runner. Workers import this module, so it is light."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pyarrow as pa


def squares(start: int) -> pa.Table:
    """Three numbers and their squares."""
    numbers = list(range(start, start + 3))
    return pa.table({"number": numbers, "square": [n * n for n in numbers]})


def noted(notes: Path, number: int) -> pa.Table:
    """Leaves a note of its process and surroundings."""
    names = ("OMP_NUM_THREADS", "E2H_GRADING_WORKERS", "CUDA_VISIBLE_DEVICES")
    found = {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}
    (notes / str(number)).write_text(json.dumps(found))
    return squares(number)


def endless(notes: Path, number: int) -> pa.Table:
    """Notes its process and never ends."""
    (notes / f"{number}.tmp").write_text(str(os.getpid()))
    (notes / f"{number}.tmp").rename(notes / f"{number}.pid")
    time.sleep(600)
    return squares(number)


def endless_at_first(notes: Path, number: int) -> pa.Table:
    """Never ends at the first try."""
    return squares(number) if (notes / f"{number}.pid").exists() else endless(notes, number)


def deadly(number: int) -> pa.Table:
    """Kills its worker at every try."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return squares(number)


def broken(number: int) -> pa.Table:
    """Fails on one shard."""
    if number == 1:
        raise ValueError("bad question in line 7")
    return squares(number)
