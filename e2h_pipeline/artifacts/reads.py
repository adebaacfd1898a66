"""What a stage may open while its body runs: its inputs, its outside files, its own folders, and
files of libraries. All else is an error.

The graph and the manifests tell what a stage declares to read. A body that opened another artifact,
or a file of hard problems, would make them untrue: gold answers could reach training unseen. So the
declaration is enforced, in three places:

- Python's audit hook sees every file that Python opens in this process.
- Arrow and safetensors open files themselves, so our readers of tables and models ask `check`.
- In worker processes the kernel refuses the rest (`resources.landlock`).
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MORE_LIBRARIES = "E2H_LIBRARY_PATHS"
"""Folders of libraries and their caches at unusual places, separated as in PATH."""
HUB_DATA = "datasets--"
"""How the Hub's cache names its folders of data sets, beside those of models."""

_SYSTEM = ["bin", "dev", "etc", "lib", "lib32", "lib64", "opt", "proc", "run", "sbin", "sys", "usr", "var"]
_CACHES = [
    "HF_HOME",
    "HF_HUB_CACHE",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "CUDA_HOME",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
    "RAY_TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
]
_USER = os.path.realpath(Path.home())  # hidden folders in it are caches and settings
_PACKAGES = ("e2h_pipeline", "assets", "resources")


WHAT_IS_OPEN = (
    "A stage can read only its inputs (`reads`, `reads_if`) and its outside files (`outside`): declare it there. "
    f"If it belongs to a library, add its folder to {MORE_LIBRARIES}"
)


class UndeclaredReadError(RuntimeError):
    """A stage opened a file that it does not declare; the message names both, and the mend."""


class ChangedWhileReadError(RuntimeError):
    """An outside file changed while a stage read it, so its fingerprint may be untrue."""


@dataclass(frozen=True)
class Reads:
    """What one stage may open.

    Attributes:
        stage: its name.
        open: files, and folders with all in them.
        closed: places of data. Nothing in them can be read, except what is in `open`.
    """

    stage: str
    open: tuple[str, ...]
    closed: tuple[str, ...]

    @classmethod
    def of(cls, stage: str, open: Iterable[Path], closed: Iterable[Path]) -> Reads:
        """The same from paths, with links followed."""
        return cls(stage, _real(open), _real(closed))

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Reads:
        """From `as_dict`, or the same read from JSON."""
        return cls(found["stage"], tuple(found["open"]), tuple(found["closed"]))

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def allows(self, path: str, libraries: Sequence[str]) -> bool:
        """Whether a path, with links followed, may be read."""
        if is_below(path, self.open):
            return True
        if is_below(path, self.closed) or f"/{HUB_DATA}" in path:
            return False
        return is_below(path, libraries) or path.startswith(f"{_USER}/.") or _belongs_to_code(path)

    def refuse(self, path: str) -> UndeclaredReadError:
        """The error for a path."""
        return UndeclaredReadError(f"{self.stage} opened {path}, which it does not declare. {WHAT_IS_OPEN}")


class _Guard:
    """Reads that are being enforced in this process, and what was refused.

    A hook runs inside of other code, which may hold locks, so `look` must open nothing itself.
    """

    def __init__(self, reads: Reads, spared: frozenset[int]) -> None:
        self.reads = reads
        self._libraries = libraries()
        self.refused: list[UndeclaredReadError] = []
        self._spared = spared

    def look(self, path: str) -> None:
        """Refuse a path that may not be read, unless it is not there at all."""
        if threading.get_ident() in self._spared:
            return
        real = os.path.realpath(path)
        if self.reads.allows(real, self._libraries) or not os.path.exists(real):
            return
        error = self.reads.refuse(real)
        self.refused.append(error)
        raise error


_guard: _Guard | None = None


@contextmanager
def enforced(reads: Reads | None) -> Iterator[None]:
    """Within it, this process can open only what `reads` allows; anything where it is None.

    Threads that run already are spared: they belong to Dagster and MLflow, not to the stage.

    Raises:
        UndeclaredReadError: at once where a file is opened, and at the end where the body caught
            that.
    """
    global _guard
    if reads is None:
        yield
        return
    _install_hook()
    spared = frozenset(t.ident for t in threading.enumerate() if t.ident) - {threading.get_ident()}
    before, _guard = _guard, _Guard(reads, spared)
    guard = _guard
    try:
        yield
    finally:
        _guard = before
    if guard.refused:
        raise guard.refused[0]


@contextmanager
def paused() -> Iterator[None]:
    """Within it, nothing is enforced: for the machinery that a body calls (progress, metrics)."""
    global _guard
    before, _guard = _guard, None
    try:
        yield
    finally:
        _guard = before


def check(path: Path | str) -> None:
    """Refuse a file that the stage in progress does not declare: for readers that are not Python's.

    Raises:
        UndeclaredReadError: it names the file and the stage.
    """
    if _guard is not None:
        _guard.look(os.fspath(path))


@lru_cache(maxsize=1)
def _install_hook() -> None:
    """Hooks cannot be removed, so there is one, and it does nothing while no guard is set."""
    sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or _guard is None:
        return
    path, mode, flags = arguments
    if isinstance(path, int) or not _is_read(mode, flags):
        return
    _guard.look(os.fsdecode(path))


def _is_read(mode: str | None, flags: int | None) -> bool:
    if mode is not None:
        return "r" in mode or ("+" in mode and "w" not in mode)
    flags = flags or 0
    return flags & os.O_ACCMODE != os.O_WRONLY and not flags & (os.O_TRUNC | os.O_DIRECTORY)


def data_places() -> list[Path]:
    """Places that hold data on this host: E2H_DATA_DIR, and data sets that the Hub's client keeps."""
    data = os.environ.get("E2H_DATA_DIR")
    return [*([Path(data)] if data else []), *hub_data()]


def hub_data() -> list[Path]:
    """Folders in which the Hub's client keeps data sets."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return [Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets"), *sorted(hub.glob(f"{HUB_DATA}*"))]


def libraries() -> tuple[str, ...]:
    """Places of the system and of libraries, with their caches and temporary files. They hold no
    data of an experiment."""
    named = tuple(os.environ.get(name, "") for name in (*_CACHES, MORE_LIBRARIES, "LD_LIBRARY_PATH"))
    return _libraries(named, tempfile.gettempdir())


@lru_cache(maxsize=8)
def _libraries(named: tuple[str, ...], temporary: str) -> tuple[str, ...]:
    packages = (Path(found) for name in _PACKAGES for found in _package_folders(name))
    return _real(
        [
            *(Path("/", name) for name in _SYSTEM),
            *map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values())),
            *map(Path, (*site.getsitepackages(), temporary)),
            *(Path(part) for text in named for part in text.split(os.pathsep) if part),
            *packages,
        ]
    )


def hidden_folders() -> list[str]:
    """Hidden entries of the user's home. On a host with a GPU the caches that CUDA and Triton would
    make there are made now: what Landlock shall leave open must exist."""
    user = Path(_USER)
    made = (".cache", ".nv", ".triton") if Path("/dev/nvidiactl").exists() else ()
    for name in made:
        with suppress(OSError):  # a home that cannot be written
            (user / name).mkdir(exist_ok=True)
    return [os.path.realpath(entry) for entry in user.glob(".*")]


def _package_folders(name: str) -> Iterable[str]:
    spec = find_spec(name)
    return (spec and spec.submodule_search_locations) or ()


def _belongs_to_code(path: str) -> bool:
    """Whether it is a module that Python could import from where it is, a file of a package, or
    what an installed package says of itself."""
    for place in map(os.path.realpath, sys.path):
        if not is_below(path, [place]):
            continue
        top = path[len(place.rstrip("/")) + 1 :].partition("/")[0]
        package = os.path.exists(os.path.join(place, top, "__init__.py"))
        if package or top.endswith((".dist-info", ".egg-info")) or path.endswith(tuple(all_suffixes())):
            return True
    return False


def _real(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(path) for path in paths))


def is_below(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of some places, or in one."""
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


State = Mapping[str, tuple[int, ...]]


def state_of(paths: Iterable[Path]) -> State:
    """Inode, size and times of files, and of all files below folders; files that are not there are
    left out.

    A file's change time moves with every write, rename and replacement and cannot be set, so equal
    states before and after a read mean that nothing changed in between.
    """
    found = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            try:
                seen = file.stat()
            except OSError:
                continue
            if not file.is_dir():
                found[str(file)] = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return found


def require_unchanged(stage: str, before: State, paths: Iterable[Path]) -> None:
    """Refuse a result made while its outside files changed.

    Raises:
        ChangedWhileReadError: a file is new, gone, or changed.
    """
    after = state_of(paths)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise ChangedWhileReadError(
            f"{stage}: {', '.join(changed[:3])} changed while it was read, so the fingerprint in the key would be "
            "untrue; nothing was kept. Run it again"
        )
