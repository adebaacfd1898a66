"""The content-addressed store: the same work is never done twice, and half an artifact is never seen.

E2H_HOME/store/<asset>/<first 16 of key>/   immutable artifacts
E2H_HOME/store/.making/                     folders being written; swept when their process is gone
E2H_HOME/store/.locks/                      one lock file per family; names the inputs of what is being made
E2H_HOME/store/.trash/                      what garbage collection removes, until it is gone
E2H_HOME/work/<asset>/<first 16 of key>/    resumable work; survives kills, goes when the artifact is made

Requests that differ only in how much they want of the same (N samples, or 4N) are a family: they share one
lock and one work folder, which stays, so that the larger is made from what the smaller left. What lies in it
is linked into artifacts, not copied. For all other requests the family is the key.

A folder's time of change says when it was last made or asked for: between that moment and Dagster's record of it,
garbage collection (garbage.py) has nothing else to know by that somebody wants the artifact.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.hashing import byte_hash, content_hash, data_version, digest_json
from e2h_pipeline.artifacts.manifest import (
    MANIFEST_NAME,
    FileEntry,
    InputRef,
    Manifest,
    ManifestError,
    read_manifest,
    refuse_credentials,
    write_manifest,
)
from e2h_pipeline.artifacts.tables import sync_folder

KEY_FOLDER_LENGTH = 16
REMOVAL_LOCK = ".removal"
_ASSET_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_HASH = re.compile(r"[0-9a-f]{64}")
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

# Files already checked by this process: path -> (mtime in ns, size, sha256). Not kept beyond the process: that a
# disk changed bytes is what the hash is for, and such a change leaves time and size as they were.
_VERIFIED: dict[str, tuple[int, int, str]] = {}


class StoreError(RuntimeError):
    """An artifact that is missing, damaged or cannot be made; the message names the file and the mend."""


@dataclass(frozen=True)
class Artifact:
    """An immutable folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def asset(self) -> str:
        return self.manifest.asset

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def data_version(self) -> str:
        return self.manifest.data_version


@dataclass(frozen=True)
class Request:
    """What determines an artifact. Only these enter the key.

    Attributes:
        grows: dotted field of the recipe that says how much is wanted, `sampling.samples`; empty where there is none.
    """

    asset: str
    code_version: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputRef] = field(default_factory=dict)
    external: Any = None
    experiment: str = ""
    grows: str = ""

    @property
    def key(self) -> str:
        """SHA-256 over everything that shapes the content. Inputs count by content, not by their own key."""
        return self._digest(self.recipe)

    @property
    def family(self) -> str:
        """The key without the field that grows; the key itself where none does.

        Raises:
            StoreError: the recipe has no such field.
        """
        return self._digest(_without(self.recipe, self.grows)) if self.grows else self.key

    def _digest(self, recipe: Mapping[str, Any]) -> str:
        return digest_json(
            {
                "asset": self.asset,
                "code": self.code_version,
                "recipe": recipe,
                "inputs": {name: ref.data_version for name, ref in self.inputs.items()},
                "external": self.external,
            }
        )


@dataclass
class Draft:
    """An artifact being made. `lock_fd` holds the family's lock; a child that inherits it keeps others out."""

    out: Path
    work: Path
    lock_fd: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    tracking_url: str | None = None
    device: str = ""


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
        """The folder of what is being written."""
        return self._making

    @property
    def locks(self) -> Path:
        """The folder of lock files."""
        return self._locks

    @property
    def trash(self) -> Path:
        """The folder of what is being removed."""
        return self._store / ".trash"

    @property
    def work_root(self) -> Path:
        """The folder of all work folders."""
        return self.home / "work"

    @property
    def work_trash(self) -> Path:
        """The folder of work that is being removed; work may lie on another disk than the store."""
        return self.work_root / ".trash"

    def folder(self, asset: str, key: str) -> Path:
        """Where an artifact lies, or would.

        Raises:
            StoreError: the name or key could not be one (they become paths).
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
        """The artifact of a key by its manifest, or None. Its files are not read: for plans, not for results.

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

        Two processes that ask for one key, or one family: the second waits, then finds what the first made, or
        goes on from it.

        Returns:
            The artifact, and whether it was already there.

        Raises:
            ManifestError: what shapes it holds a credential, which its manifest must not; nothing is computed.
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

    @contextmanager
    def removal_lock(self, *, exclusive: bool) -> Iterator[None]:
        """Held for a moment by who asks for an artifact (shared), and by who removes one (exclusive)."""
        self._locks.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._locks / REMOVAL_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def _claim(self, request: Request) -> Artifact | None:
        """`find`, and a mark that it is wanted; None where it was removed in between."""
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
        """Remove what killed processes of this host left half written, or half removed."""
        for folder in self.abandoned():
            shutil.rmtree(folder, ignore_errors=True)

    def abandoned(self) -> list[Path]:
        """Folders that killed processes of this host left half written, or half removed."""
        places = (place for place in (self._making, self.trash, self.work_trash) if place.is_dir())
        return [folder for place in places for folder in sorted(place.glob("*~*~*")) if _is_abandoned(folder)]

    def own_name(self) -> str:
        """A new name for a folder that this process alone works at."""
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
        """Hold the family's lock. The kernel lets go of it when the last process that holds it is gone."""
        self._locks.mkdir(parents=True, exist_ok=True)
        handle = _locked(self._lock_path(request))
        try:
            _note_inputs(handle, request)
            self._claim_inputs(request)
            yield handle
        finally:
            os.close(handle)

    def _claim_inputs(self, request: Request) -> None:
        """Mark inputs as wanted: what is removed from now on is chosen after this lock was seen, with its inputs."""
        with self.removal_lock(exclusive=False):
            for asset, ref in request.inputs.items():
                with suppress(FileNotFoundError):  # who reads it says so
                    os.utime(self.folder(asset, ref.key))

    @contextmanager
    def _write(self, request: Request, lock_fd: int) -> Iterator[Draft]:
        """A temporary folder that becomes the artifact when the block ends, and goes if it raises."""
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
        manifest = _manifest(request, draft, _hash_files(draft.out), seconds)
        write_manifest(draft.out, manifest)
        _sync_tree(draft.out)
        final = self.folder(request.asset, request.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.out.rename(final)
        sync_folder(final.parent)


def lock_is_held(path: Path) -> bool:
    """Whether some process holds a lock file now."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _locked(path: Path) -> int:
    """Open and lock a lock file that is still the one of its name: unused ones are removed."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_named(handle, path):
            return handle
        os.close(handle)


@contextmanager
def free_lock(path: Path) -> Iterator[int | None]:
    """Hold a lock file where nobody else does; None where somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle if _is_named(handle, path) else None
    except BlockingIOError:
        yield None
    finally:
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _note_inputs(handle: int, request: Request) -> None:
    os.ftruncate(handle, 0)
    keys = {asset: ref.key for asset, ref in request.inputs.items()}
    os.pwrite(handle, json.dumps(keys).encode(), 0)


def _is_abandoned(folder: Path) -> bool:
    host, pid, _ = folder.name.split("~", 2)
    return host == socket.gethostname() and pid.isdigit() and not _alive(int(pid))


def request_behind(manifest: Manifest, grows: str = "") -> Request:
    """What was asked for when an artifact was made. Its key is the manifest's, unless somebody wrote in there.

    Args:
        grows: the stage's field that grows; manifests do not say.
    """
    return Request(
        asset=manifest.asset,
        code_version=manifest.code_version,
        recipe=manifest.recipe,
        inputs=manifest.inputs,
        external=manifest.external,
        experiment=manifest.experiment,
        grows=grows,
    )


def manifest_damage(manifest: Manifest) -> str | None:
    """What in a manifest contradicts itself, or None: the key is a hash of what shaped the artifact, the data version
    one of its files' content. Files are not read."""
    if request_behind(manifest).key != manifest.key:
        return "key does not match code version, recipe, inputs and external fingerprint"
    if data_version({name: entry.content for name, entry in manifest.files.items()}) != manifest.data_version:
        return "data_version does not match its files"
    return None


def _manifest(request: Request, draft: Draft, files: dict[str, FileEntry], seconds: float) -> Manifest:
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


def _hash_files(folder: Path) -> dict[str, FileEntry]:
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise StoreError(
                f"{path}: a link inside an artifact; copy the file, what it points to may change"
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


def _without(recipe: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A recipe without one dotted field."""
    name, _, inner = field.partition(".")
    if name not in recipe:
        raise StoreError(f"'{field}' grows, but the stage does not read it; name it among its recipe fields")
    rest = {other: value for other, value in recipe.items() if other != name}
    return {**rest, name: _without(recipe[name], inner)} if inner else rest


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


def _sync_tree(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
    """The stage's own count, or the sum of its parts' (greedy and sampled answers); None without any."""
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
    """The accelerator this process has used, by name; does not import torch for the question."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "cpu"


def _peak_memory() -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) * unit
