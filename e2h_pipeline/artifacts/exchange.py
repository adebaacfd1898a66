"""Artifacts leave a store as a folder, and enter another one: whole, or not at all.

A bundle has `artifacts/<asset>/<first 16 of key>/`, each with its manifest, and SHA256SUMS over all its
files. Of artifacts that are left out the manifest alone is there, so lineage stays whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from e2h_pipeline.artifacts.commit import sync_tree
from e2h_pipeline.artifacts.hashing import byte_hash
from e2h_pipeline.artifacts.manifest import MANIFEST_NAME, Manifest, ManifestError, read_manifest
from e2h_pipeline.artifacts.request import Artifact, StoreError, manifest_damage
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import sync_folder

ARTIFACTS, SUMS = "artifacts", "SHA256SUMS"


@dataclass(frozen=True)
class Imported:
    """What became of the artifacts of a bundle, as asset and first digits of the key."""

    added: tuple[str, ...]
    there: tuple[str, ...]
    left_out: tuple[str, ...]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes its name at the end, so that a half one is never seen.

    Raises:
        StoreError: there is something of that name.
    """
    if folder.exists():
        raise StoreError(f"{folder} is there already; name a new folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        yield draft
        sync_tree(draft)
        draft.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_bundle(
    store: ArtifactStore, made: Iterable[Artifact], folder: Path, without: Collection[str]
) -> None:
    """Copy artifacts into `folder/artifacts`, each checked against its manifest.

    Args:
        without: assets of which the manifest alone is written.

    Raises:
        StoreError: an artifact is damaged.
    """
    for artifact in made:
        target = folder / ARTIFACTS / artifact.asset / artifact.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if artifact.asset in without:
            target.mkdir()
            shutil.copy2(artifact.path / MANIFEST_NAME, target)
        else:
            shutil.copytree(store.open(artifact.asset, artifact.key).path, target)


def write_sums(folder: Path) -> None:
    """Hash all files of a folder into SHA256SUMS, as `sha256sum -c` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{byte_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read_bundle(store: ArtifactStore, folder: Path) -> Imported:
    """Put the artifacts of a bundle into a store. Nothing is added before all are checked.

    Raises:
        StoreError: it is no bundle, a file is damaged, or the store has an artifact of that key with
            other content.
    """
    whole: list[tuple[Path, Manifest]] = []
    left_out: list[tuple[Path, Manifest]] = []
    for place in sorted((folder / ARTIFACTS).glob("*/*/")):
        manifest = _checked(store, place)
        (whole if _has_files(place, manifest) else left_out).append((place, manifest))
    if not whole and not left_out:
        raise StoreError(f"{folder}: no artifacts below {ARTIFACTS}/; e2h export writes such a folder")
    there = [pair for pair in whole if _is_there(store, *pair)]
    added = [pair for pair in whole if pair not in there]
    for place, manifest in added:
        store.adopt(place, manifest)
    return Imported(*(tuple(map(_name, pairs)) for pairs in (added, there, left_out)))


def _name(pair: tuple[Path, Manifest]) -> str:
    return f"{pair[1].asset} {pair[0].name}"


def _checked(store: ArtifactStore, place: Path) -> Manifest:
    """The manifest of an artifact of a bundle, whose files fit it."""
    try:
        manifest = read_manifest(place)
    except ManifestError as error:
        raise StoreError(str(error)) from None
    if damage := manifest_damage(manifest):
        raise StoreError(f"{place / MANIFEST_NAME}: {damage}")
    if store.folder(manifest.asset, manifest.key).parts[-2:] != place.parts[-2:]:
        raise StoreError(f"{place}: its manifest is of {manifest.asset} {manifest.key[:16]}")
    for path in place.rglob("*"):
        name = path.relative_to(place).as_posix()
        if path.is_symlink() or (path.is_file() and name not in {*manifest.files, MANIFEST_NAME}):
            raise StoreError(f"{path}: not in the manifest")
    if _has_files(place, manifest):
        for name, entry in manifest.files.items():
            file = place / _inside(name, place)
            if not file.is_file() or file.stat().st_size != entry.size or byte_hash(file) != entry.sha256:
                raise StoreError(f"{file}: missing, or does not match its hash in {MANIFEST_NAME}")
    return manifest


def _inside(name: str, place: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"{place / MANIFEST_NAME}: {name!r} is no file of the artifact")
    return path


def _has_files(place: Path, manifest: Manifest) -> bool:
    return not manifest.files or any(path.name != MANIFEST_NAME for path in place.iterdir())


def _is_there(store: ArtifactStore, place: Path, manifest: Manifest) -> bool:
    found = store.find(manifest.asset, manifest.key)
    if found is not None and found.data_version != manifest.data_version:
        raise StoreError(
            f"{found.path} has other content than {place}: two runs of one key; keep one of them (e2h gc removes what "
            "no experiment uses)"
        )
    return found is not None
