"""The content-addressed store: no work is done twice, and no half artifact is ever seen.

E2H_HOME/store/<asset>/<first 16 of key>/   immutable artifacts
E2H_HOME/store/.making/                     folders being written; swept when their process is gone
E2H_HOME/store/.locks/                      one lock file per family, with the keys of inputs in use
E2H_HOME/store/.trash/                      folders that garbage collection is deleting
E2H_HOME/work/<asset>/<first 16 of key>/    resumable work; kept until the artifact is made

Requests that differ only in the amount of work (N samples, or 4N) are a family: they share one lock
and one work folder. That folder stays, so that a larger request continues a smaller one; its files
are linked into artifacts, not copied. For all other requests the family is the key.

A folder's mtime is the time the artifact was last made or asked for. Until Dagster records the
artifact, this timestamp is garbage collection's only sign that it is in use (garbage.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from e2h_pipeline.artifacts.commit import build_manifest, hash_files, share, sync_tree
from e2h_pipeline.artifacts.hashing import byte_hash
from e2h_pipeline.artifacts.locks import lock_is_held, locked, note_inputs
from e2h_pipeline.artifacts.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    ManifestError,
    read_manifest,
    refuse_credentials,
    write_manifest,
)
from e2h_pipeline.artifacts.request import Artifact, Draft, Request, StoreError, manifest_damage
from e2h_pipeline.artifacts.tables import sync_folder

KEY_FOLDER_LENGTH = 16
REMOVAL_LOCK = ".removal"
_ASSET_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_HASH = re.compile(r"[0-9a-f]{64}")

# Files already checked by this process: path -> (mtime in ns, size, sha256).
# In memory only: bit rot keeps time and size, so each process hashes every file once.
_VERIFIED: dict[str, tuple[int, int, str]] = {}


class ArtifactStore:
    """Artifacts under one home folder.

    Args:
        home: E2H_HOME; `store/` and `work/` are made below it.
    """

    def __init__(self, home: Path) -> None:
        self.home = Path(home)
        self._store = self.home / "store"
        self._making = self._store / ".making"
        self._locks = self._store / ".locks"

    @property
    def root(self) -> Path:
        """The folder of all artifacts."""
        return self._store

    @property
    def making(self) -> Path:
        """The folder of drafts."""
        return self._making

    @property
    def locks(self) -> Path:
        """The folder of lock files."""
        return self._locks

    @property
    def trash(self) -> Path:
        """The folder of artifacts that are being deleted."""
        return self._store / ".trash"

    @property
    def work_root(self) -> Path:
        """The folder of all work folders."""
        return self.home / "work"

    @property
    def work_trash(self) -> Path:
        """The folder of work that is being deleted; work may lie on another disk than the store."""
        return self.work_root / ".trash"

    def folder(self, asset: str, key: str) -> Path:
        """The folder of an artifact, whether it exists or not.

        Raises:
            StoreError: the name or key is malformed (they become paths).
        """
        _check_names(asset, key)
        return self._store / asset / key[:KEY_FOLDER_LENGTH]

    def work_dir(self, asset: str, key: str) -> Path:
        """The resumable work folder of a key or a family, made if needed."""
        _check_names(asset, key)
        folder = self.home / "work" / asset / key[:KEY_FOLDER_LENGTH]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, asset: str, key: str) -> Artifact | None:
        """The verified artifact of a key, or None.

        Raises:
            StoreError: it is there but damaged.
        """
        folder = self.folder(asset, key)
        return self._read(folder, key) if folder.exists() else None

    def peek(self, asset: str, key: str) -> Artifact | None:
        """The artifact of a key by its manifest, or None. Its files are not read: for plans, not
        for results.

        Raises:
            StoreError: the manifest cannot be read.
        """
        folder = self.folder(asset, key)
        try:
            manifest = read_manifest(folder) if folder.exists() else None
        except ManifestError as error:
            raise StoreError(str(error)) from None
        return Artifact(folder, manifest) if manifest and manifest.key == key else None

    def being_made(self, request: Request) -> bool:
        """Whether some process holds the lock of a request's family now."""
        return lock_is_held(self._lock_path(request))

    def open(self, asset: str, key: str) -> Artifact:
        """The verified artifact of a key.

        Raises:
            StoreError: it is not there, or damaged.
        """
        artifact = self.find(asset, key)
        if artifact is None:
            raise StoreError(
                f"{self.folder(asset, key)}: no such artifact in the store; materialize {asset} again"
            )
        return artifact

    def obtain(self, request: Request, make: Callable[[Draft], None]) -> tuple[Artifact, bool]:
        """The artifact of a request: found, or made by `make`, which fills `draft.out`.

        Where two processes ask for one key or family, the second waits, then finds the first one's
        artifact or continues its work.

        Returns:
            The artifact, and whether it was already there.

        Raises:
            ManifestError: the request holds a credential, which must not enter a manifest; nothing
                is computed.
        """
        found = self._claim(request)
        if found:
            return found, True
        shapes = {"experiment": request.experiment, "recipe": request.recipe, "external": request.external}
        refuse_credentials(request.asset, shapes)
        with self._lock(request) as lock_fd:
            found = self._claim(request)
            if found:
                return found, True
            with self._write(request, lock_fd) as draft:
                make(draft)
        return self.open(request.asset, request.key), False

    def adopt(self, folder: Path, manifest: Manifest) -> None:
        """Copy a checked artifact of another store into this one; it must not be here yet."""
        draft = self._making / self.own_name()
        try:
            shutil.copytree(folder, draft)
            share(draft)
            self._place(draft, manifest.asset, manifest.key)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    @contextmanager
    def removal_lock(self, *, exclusive: bool) -> Iterator[None]:
        """Held briefly: shared by requests for artifacts, exclusive by removals."""
        self._locks.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._locks / REMOVAL_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def _claim(self, request: Request) -> Artifact | None:
        """`find`, and mark the artifact as wanted; None where it was removed in between."""
        found = self.find(request.asset, request.key)
        if found is None:
            return None
        with self.removal_lock(exclusive=False):
            try:
                os.utime(found.path)
            except FileNotFoundError:
                return None
        return found

    def sweep(self) -> None:
        """Remove the folders of `abandoned`."""
        for folder in self.abandoned():
            shutil.rmtree(folder, ignore_errors=True)

    def abandoned(self) -> list[Path]:
        """Folders that killed processes of this host left half written, or half removed."""
        places = (place for place in (self._making, self.trash, self.work_trash) if place.is_dir())
        return [folder for place in places for folder in sorted(place.glob("*~*~*")) if _is_abandoned(folder)]

    def own_name(self) -> str:
        """A new, unique name for a folder of this process."""
        return f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"

    def _read(self, folder: Path, key: str) -> Artifact:
        try:
            manifest = read_manifest(folder)
        except ManifestError as error:
            raise StoreError(str(error)) from None
        if manifest.key != key:
            raise StoreError(
                f"{folder / MANIFEST_NAME}: key is {manifest.key[:16]}..., not {key[:16]}...; delete {folder}"
            )
        for name, entry in manifest.files.items():
            _verify(folder, name, entry)
        damage = manifest_damage(manifest)
        if damage:
            raise StoreError(f"{folder / MANIFEST_NAME}: {damage}; delete {folder} to make it again")
        return Artifact(folder, manifest)

    def lock_path(self, asset: str, family: str) -> Path:
        """The lock file of a family."""
        return self._locks / f"{asset}-{family[:KEY_FOLDER_LENGTH]}"

    def _lock_path(self, request: Request) -> Path:
        return self.lock_path(request.asset, request.family)

    @contextmanager
    def _lock(self, request: Request) -> Iterator[int]:
        """Hold the family's lock. The kernel releases it when its last holder ends."""
        self._locks.mkdir(parents=True, exist_ok=True)
        handle = locked(self._lock_path(request))
        try:
            note_inputs(handle, request)
            self._claim_inputs(request)
            yield handle
        finally:
            os.close(handle)

    def _claim_inputs(self, request: Request) -> None:
        """Mark inputs as wanted: older removal plans see the marks, later plans the lock."""
        with self.removal_lock(exclusive=False):
            for asset, ref in request.inputs.items():
                with suppress(FileNotFoundError):  # the reader of the input reports it
                    os.utime(self.folder(asset, ref.key))

    @contextmanager
    def _write(self, request: Request, lock_fd: int) -> Iterator[Draft]:
        """A temporary folder that becomes the artifact when the block ends; removed on errors."""
        self.sweep()
        started = time.monotonic()
        out = self._making / self.own_name()
        out.mkdir(parents=True)
        draft = Draft(out, self.work_dir(request.asset, request.family), lock_fd)
        try:
            yield draft
            self._commit(request, draft, time.monotonic() - started)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
        if not request.grows:
            shutil.rmtree(draft.work, ignore_errors=True)

    def _commit(self, request: Request, draft: Draft, seconds: float) -> None:
        manifest = build_manifest(request, draft, hash_files(draft.out), seconds)
        write_manifest(draft.out, manifest)
        share(draft.out)
        self._place(draft.out, request.asset, request.key)

    def _place(self, draft: Path, asset: str, key: str) -> None:
        """Make a finished draft the artifact of a key."""
        sync_tree(draft)
        final = self.folder(asset, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(final)
        sync_folder(final.parent)


def _is_abandoned(folder: Path) -> bool:
    host, pid, _ = folder.name.split("~", 2)
    return host == socket.gethostname() and pid.isdigit() and not _alive(int(pid))


def _verify(folder: Path, name: str, entry: FileEntry) -> None:
    """Compare a file with its manifest entry; unchanged files are hashed once per process."""
    path = folder / name
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise StoreError(f"{path}: missing from the artifact; delete {folder} to make it again") from None
    seen = (stat.st_mtime_ns, stat.st_size, entry.sha256)
    if _VERIFIED.get(str(path)) == seen:
        return
    if stat.st_size != entry.size or byte_hash(path) != entry.sha256:
        raise StoreError(
            f"{path}: does not match its hash in {MANIFEST_NAME}; delete {folder} to make it again"
        )
    _VERIFIED[str(path)] = seen


def _check_names(asset: str, key: str) -> None:
    if not _ASSET_NAME.fullmatch(asset):
        raise StoreError(f"'{asset}' is not an asset name (lower-case letters, digits and _)")
    if not _HASH.fullmatch(key):
        raise StoreError(f"'{key}' is not an artifact key (64 hex digits)")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
