"""Stages and shards that open what they do not declare, by every way that a body has. The place is
in TOY_PLACE, the way in TOY_WAY; workers import this module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.stages.asset import stage


def _in_a_child(place: Path) -> object:
    code = f"print(len(open({str(place)!r}, 'rb').read()))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return None


def _by_arrow(place: Path) -> object:
    import pyarrow.parquet as pq

    return pq.ParquetFile(place).read()


def _by_the_store(place: Path) -> object:
    folder = place.parent
    manifest = ArtifactStore(folder.parents[2]).peek(folder.parent.name, folder.name + "0" * 48)
    return manifest or ArtifactStore(folder.parents[2]).root


def _and_hide_it(place: Path) -> object:
    with suppress(Exception):
        place.read_bytes()
    return None


def _through_a_link(place: Path) -> object:
    link = Path(os.environ["TOY_LINK"])
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return link.read_bytes()


WAYS: dict[str, Callable[[Path], object]] = {
    "python": Path.read_bytes,
    "os": lambda place: os.open(place, os.O_RDONLY),
    "table": read_table,
    "store": _by_the_store,
    "link": _through_a_link,
    "hidden": _and_hide_it,
    "arrow": _by_arrow,
    "child": _in_a_child,
}
NATIVE = ("arrow", "child")
"""Ways past Python's opens of this process: only the kernel stops them, in worker processes."""


@stage(group="toy", reads=["toy_easy"], recipe=["seed"])
def thief(job: StageJob) -> dict[str, Any]:
    """Reads its input, as it may, and then more."""
    read_table(job.path("toy_easy") / "data.parquet")
    WAYS[os.environ["TOY_WAY"]](Path(os.environ["TOY_PLACE"]))
    return {}


def taken(allowed: Path, place: Path) -> pa.Table:
    """Read a file that may be read, then another."""
    read_table(allowed)
    return _by_arrow(place)


@stage(group="toy", recipe=["seed", "problems"])
def asks_for_the_split(job: StageJob) -> dict[str, Any]:
    """Loads all problems itself."""
    from e2h_pipeline.problems.source import load_split

    return {"hard": len(load_split(job.recipe.problems).hard)}
