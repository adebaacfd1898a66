"""The contents of a store: artifacts and foreign entries. Only manifests are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from e2h_pipeline.artifacts.manifest import InputRef, Manifest, ManifestError, read_manifest
from e2h_pipeline.artifacts.store import KEY_FOLDER_LENGTH, ArtifactStore

Place = tuple[str, str]
"""Asset and first digits of the key: the folder of an artifact in the store."""

_FOLDER = re.compile(rf"[0-9a-f]{{{KEY_FOLDER_LENGTH}}}")
_ASSET = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Entry:
    """An artifact. `changed` is when it was last made or asked for, in ns."""

    place: Place
    path: Path
    manifest: Manifest
    changed: int

    def inputs(self) -> Iterator[tuple[Place, InputRef]]:
        """The places of its inputs, whether they still exist or not."""
        for asset, ref in self.manifest.inputs.items():
            yield place_of(asset, ref.key), ref


@dataclass(frozen=True)
class Inventory:
    """Artifacts by place, and foreign entries with the reason."""

    entries: dict[Place, Entry] = field(default_factory=dict)
    foreign: dict[Path, str] = field(default_factory=dict)


def place_of(asset: str, key: str) -> Place:
    """The place of a key's artifact."""
    return asset, key[:KEY_FOLDER_LENGTH]


def take_inventory(store: ArtifactStore) -> Inventory:
    """List a store. Folders removed during the listing are left out."""
    found = Inventory()
    for asset in _listed(store.root):
        if asset.name in {store.making.name, store.locks.name, store.trash.name}:
            continue
        if not _ASSET.fullmatch(asset.name) or not asset.is_dir(follow_symlinks=False):
            found.foreign[Path(asset.path)] = "not made by this project"
            continue
        for folder in _listed(Path(asset.path)):
            _add(found, asset.name, folder)
    return found


def _add(found: Inventory, asset: str, folder: os.DirEntry[str]) -> None:
    path = Path(folder.path)
    if not _FOLDER.fullmatch(folder.name) or not folder.is_dir(follow_symlinks=False):
        found.foreign[path] = "not made by this project"
        return
    try:
        changed = path.stat().st_mtime_ns
        manifest = read_manifest(path)
    except FileNotFoundError:
        return
    except ManifestError as error:
        if path.exists():
            found.foreign[path] = str(error)
        return
    place = (asset, folder.name)
    if place_of(manifest.asset, manifest.key) != place:
        found.foreign[path] = f"its manifest belongs to {manifest.asset} {manifest.key[:KEY_FOLDER_LENGTH]}"
        return
    found.entries[place] = Entry(place, path, manifest, changed)


def with_ancestors(inventory: Inventory, places: Iterable[Place]) -> set[Place]:
    """These places and all their ancestors, as far as they are in the store."""
    found: set[Place] = set()
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        entry = inventory.entries.get(place)
        if entry is not None and place not in found:
            found.add(place)
            waiting.extend(parent for parent, _ in entry.inputs())
    return found


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
