"""An artifact made of another's files, without a second copy of them on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from e2h_pipeline.artifacts.manifest import MANIFEST_NAME


def link_files(source: Path, out: Path) -> int:
    """Hard links in `out` to every file of an artifact but its manifest; copies where the file system has
    no links. Artifacts are immutable, so sharing bytes is safe. Returns the number of files."""
    count = 0
    for path in sorted(source.rglob("*")):
        if path.is_dir() or path == source / MANIFEST_NAME:
            continue
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
        count += 1
    return count
