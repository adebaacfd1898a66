"""From a finished draft to a manifest: hash the files, sync them to disk, record their origin."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.hashing import byte_hash, content_hash, data_version
from e2h_pipeline.artifacts.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
)
from e2h_pipeline.artifacts.request import Draft, Request, StoreError
from e2h_pipeline.artifacts.tables import sync_folder

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "vllm",
    "pyarrow",
    "numpy",
    "math-verify",
    "sympy",
)


def build_manifest(request: Request, draft: Draft, files: dict[str, FileEntry], seconds: float) -> Manifest:
    """The manifest of a draft with hashed files; `seconds` is the wall time of making it."""
    summary = _plain(draft.summary)
    return Manifest(
        asset=request.asset,
        key=request.key,
        experiment=request.experiment,
        code_version=request.code_version,
        recipe=dict(request.recipe),
        inputs=dict(request.inputs),
        external=request.external,
        data_version=data_version({name: entry.content for name, entry in files.items()}),
        files=files,
        seeds=_seeds(request.recipe),
        packages=_packages(),
        device=draft.device or device_name(),
        wall_seconds=round(seconds, 3),
        tokens=_tokens(summary),
        peak_memory_bytes=_peak_memory(),
        summary=summary,
        run_id=draft.run_id,
        tracking_url=draft.tracking_url,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """Hashes and sizes of all files below a folder, by relative name.

    Raises:
        StoreError: there is a link, or a file named like the manifest.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise StoreError(
                f"{path}: a link inside an artifact; copy the file, because the link's target may change"
            )
        if name == MANIFEST_NAME:
            raise StoreError(
                f"{path}: the store writes {MANIFEST_NAME}; call the stage's own file something else"
            )
        if path.is_file():
            digest = byte_hash(path)
            files[name] = FileEntry(
                sha256=digest, content=content_hash(path, digest), size=path.stat().st_size
            )
    return files


def share(folder: Path) -> None:
    """Give all files of an artifact the mode of its manifest, and all folders the mode of their top:
    what the umask says. Some libraries make files that only their owner can read (safetensors: 600).
    """
    files, folders = ((place.stat().st_mode & 0o777) for place in (folder / MANIFEST_NAME, folder))
    for path in folder.rglob("*"):
        wanted = folders if path.is_dir() else files
        if path.stat().st_mode & 0o777 != wanted:
            path.chmod(wanted)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all below it are on disk."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    """JSON data from a summary: numpy and torch scalars become numbers, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return str(value) if isinstance(value, Path) else value


def _tokens(summary: Mapping[str, Any]) -> int | None:
    """The stage's own count, else the sum over its parts (greedy, sampled answers), else None."""
    if isinstance(summary.get("tokens"), int):
        return int(summary["tokens"])
    parts = [part["tokens"] for part in summary.values() if isinstance(part, dict) and "tokens" in part]
    return sum(parts) if parts and all(isinstance(part, int) for part in parts) else None


def _seeds(recipe: Mapping[str, Any]) -> dict[str, int]:
    """Every seed of a recipe slice, by dotted field."""
    seeds = {}
    for name, value in recipe.items():
        if name == "seed":
            seeds["seed"] = value
        elif isinstance(value, Mapping):
            seeds.update({f"{name}.{inner}": seed for inner, seed in _seeds(value).items()})
    return seeds


def _packages() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """Name of the accelerator that this process has used; does not import torch."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "cpu"


def _peak_memory() -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) * unit
