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
    """A small artifact made of others; `content` is what is in it, its name where not given."""

    def body(draft: Draft) -> None:
        (draft.out / "data.txt").write_text(content or f"{asset} of {code} {recipe} {refs}")

    refs = {a.asset: InputRef(key=a.key, data_version=a.data_version) for a in inputs}
    return store.obtain(Request(asset, code, recipe or {}, refs, experiment=experiment), body)[0]


def place(artifact: Artifact) -> Place:
    """Where an artifact lies."""
    return place_of(artifact.asset, artifact.key)


def age(home: Path, seconds: float = 2 * HOUR) -> None:
    """As if everything in a home had been made a while ago."""
    then = time.time() - seconds
    for path in [*home.glob("store/*/*"), *home.glob("store/.locks/*")]:
        with suppress(FileNotFoundError):  # collected in between
            os.utime(path, (then, then))
