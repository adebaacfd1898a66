"""Small stores made by hand, through the real ArtifactStore."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.inventory import Place, place_of
from e2h_pipeline.artifacts.manifest import InputRef
from e2h_pipeline.artifacts.request import Artifact, Draft, Request
from e2h_pipeline.artifacts.store import ArtifactStore

HOUR = 3600.0


def make(
    store: ArtifactStore,
    asset: str,
    *inputs: Artifact,
    content: str = "",
    code: str = "c0de",
    recipe: dict[str, Any] | None = None,
    experiment: str = "",
) -> Artifact:
    """A small artifact made from others. Its content is `content`, or else its name."""

    def body(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(content or f"{asset} of {code} {recipe} {refs}")

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, code, recipe or {}, refs, experiment=experiment), body)[0]


def place(artifact: Artifact) -> Place:
    """Where an artifact lies."""
    return place_of(artifact.asset, artifact.key)


def age(home: Path, seconds: float = 2 * HOUR) -> None:
    """Make everything in a home look old."""
    then = time.time() - seconds
    for path in [*home.glob("store/*/*"), *home.glob("store/.locks/*")]:
        with suppress(FileNotFoundError):  # collected meanwhile
            os.utime(path, (then, then))
