"""Shards on a Ray cluster (Ray core): the runner of `E2H_COMPUTE=ray`.

One worker process for each share of the cluster (some cores, and a GPU if the stage wants one), for
as long as the stage has shards. A worker is an actor, because it keeps a model. For plain tasks,
Ray may choose another GPU than the one that holds the model, and therefore ends a process after
each GPU task. An actor keeps its GPU and loads its model once.

If a worker or node dies, Ray restarts the worker, elsewhere if need be, and repeats the call.
Shards are pure functions, so the result is the same.

A result must come from the code of its artifact's key. So each worker compares its code and the
packages that shape results with those of this process at its start.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import e2h_pipeline
from e2h_pipeline.artifacts.reads import Reads, enforced
from e2h_pipeline.artifacts.shards import Call
from e2h_pipeline.recipe.plugins import installed
from e2h_pipeline.registry import REGISTRIES, Registry
from resources.landlock import restrict

if TYPE_CHECKING:
    import pyarrow as pa

RESTARTS = 3
"""Restarts of a worker in a stage, limited because a shard may need too much memory."""

_CONNECT_SECONDS = 30.0

# They shape results, and Ray does not install them. Ray itself checks its own and Python's version.
_PACKAGES = (
    "latex2sympy2-extended", "math-verify", "mpmath", "numpy", "pyarrow", "sympy",
    "tokenizers", "torch", "transformers", "vllm",
)  # fmt: skip


class ShardError(RuntimeError):
    """A shard cannot be made on the cluster; the message names it, a note has the traceback."""


class RayRunner:
    """Runs shards on the cluster at `address`, or on a local one started for this process alone.

    Workers read their inputs by path: all nodes must see the folders of E2H_HOME and of models at
    the same place. Tables come back through Ray's object store, at most one from each worker at a
    time, so memory does not grow with the number of shards. Ray copies the project's code to nodes
    that lack it. Packages must be installed on each node in the versions of this process. Code and
    versions are checked.

    Create it when the stage begins: workers must have the code that is on disk at that time.

    Args:
        address: as for `ray.init`; "" starts a local cluster.
        gpu: each worker gets a GPU, if the cluster has any.
        threads: cores of a worker, and its torch threads; 0 for OMP_NUM_THREADS or 1.
        reads: all that the workers may open; None: not checked.
    """

    def __init__(
        self, address: str = "", *, gpu: bool = False, threads: int = 0, reads: Reads | None = None
    ) -> None:
        self.address = address
        self.gpu = gpu
        self.reads = reads
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.wanted = Surroundings.here()

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        """See `Runner.run`.

        Raises:
            ShardError: a shard raised; a worker died `RESTARTS` + 1 times, or has other code or
                packages than this process; the cluster cannot be reached or has no room for a
                worker.
        """
        import ray

        _connect(self.address)
        workers = [self._worker() for _ in range(min(len(calls), self._room()))]
        ready = {worker.check.remote(): worker for worker in workers}
        busy: dict[Any, tuple[str, Any]] = {}  # running call -> its shard and its worker
        waiting = deque(calls)
        try:
            while waiting or busy:
                (reference,), _ = ray.wait([*ready, *busy], num_returns=1)
                table = None
                if reference in ready:
                    worker = ready.pop(reference)
                    _fetch(reference, "cannot start a worker")
                else:
                    name, worker = busy.pop(reference)
                    table = _fetch(reference, f"shard {name}")
                if waiting:
                    shard, arguments = waiting.popleft()
                    busy[worker.call.remote(function, *arguments)] = shard, worker
                else:  # replace a worker that was lost with its node and still has a shard
                    ray.kill(worker)
                    workers.remove(worker)
                del reference  # otherwise the object store would keep the table
                if table is not None:
                    yield name, table
                del table
        finally:
            for worker in workers:
                ray.kill(worker)

    def _worker(self) -> Any:
        import ray

        environment = {name: value for name, value in os.environ.items() if name.startswith("VLLM_")}
        environment |= {"OMP_NUM_THREADS": str(self.threads), "E2H_GRADING_WORKERS": str(self.threads)}
        return (
            ray.remote(_Worker)
            .options(
                num_cpus=self.threads,
                num_gpus=int(self._on_gpus()),
                max_restarts=RESTARTS,
                max_task_retries=-1,  # any limit could run out before Ray notices that a node is lost
                runtime_env={"env_vars": environment},
            )
            .remote(self.wanted, self.reads)
        )

    def _on_gpus(self) -> bool:
        import ray

        return self.gpu and ray.cluster_resources().get("GPU", 0) >= 1

    def _room(self) -> int:
        """Number of workers that fit."""
        import ray

        room = sum(self._room_on(node["Resources"]) for node in ray.nodes() if node["Alive"])
        if not room:
            raise ShardError(
                f"no node of the Ray cluster has {self.threads} cores for a worker (OMP_NUM_THREADS): "
                f"{ray.cluster_resources()}"
            )
        return room

    def _room_on(self, resources: Mapping[str, float]) -> int:
        cores = int(resources.get("CPU", 0) // self.threads)
        return min(cores, int(resources.get("GPU", 0))) if self._on_gpus() else cores


@dataclass(frozen=True)
class Surroundings:
    """Everything that shapes results besides a shard's arguments.

    Attributes:
        packages: versions; None for a package that is not installed.
        code: hash of the Python files of the library, and of each package that adds methods to it.
    """

    packages: Mapping[str, str | None]
    code: Mapping[str, str]

    @classmethod
    def here(cls, code: Iterable[str] | None = None) -> Surroundings:
        """The surroundings of this process, with the code as it is on disk now.

        Args:
            code: packages to hash; if None, the library and all packages that add methods.
        """
        names = _library() if code is None else code
        return cls({name: _version(name) for name in _PACKAGES}, {name: _code_hash(name) for name in names})


class _Worker:
    """The actor in a worker process. Ray creates it again with the same arguments at a restart."""

    def __init__(self, wanted: Surroundings, reads: Reads | None = None) -> None:
        self._wanted, self._reads = wanted, reads
        if reads:
            restrict(reads)
        self._checked = False

    def check(self) -> None:
        """Refuse code or packages that could give other results than the driver's.

        Raises:
            RuntimeError: it names the node and the difference.
        """
        wanted, found = self._wanted, Surroundings.here(self._wanted.code)
        versions = [
            f"{name} {found.packages[name]} instead of {version}"
            for name, version in wanted.packages.items()
            if found.packages[name] != version
        ]
        if versions:
            raise RuntimeError(
                f"node {socket.gethostname()} has {', '.join(versions)}: install the versions of constraints.txt there"
            )
        code = [name for name in wanted.code if found.code[name] != wanted.code[name]]
        if code:
            raise RuntimeError(
                f"node {socket.gethostname()} has other code of {', '.join(code)} than this stage began with: bring the "
                "same code there, do not edit it while stages run, and run again"
            )

    def call(self, function: Callable[..., pa.Table], *arguments: Any) -> pa.Table:
        """Make a shard. The first one imports code, so the code is checked again afterwards."""
        with enforced(self._reads):
            table = function(*arguments)
        if not self._checked:
            self.check()
            self._checked = True
        return table


def _connect(address: str) -> None:
    """Join the cluster, or start one; an open connection is reused."""
    import ray

    if ray.is_initialized():
        return
    if not address:
        ray.init(address="local", include_dashboard=False, logging_level="warning")
        return
    code = [str(Path(e2h_pipeline.__file__).parent), str(Path(__file__).parent)]
    try:
        _knock(address)
        ray.init(address=address, runtime_env={"py_modules": code}, logging_level="warning")
    except OSError as error:  # ConnectionError is one
        raise ShardError(f"no Ray cluster at '{address}' (E2H_RAY_ADDRESS): {error}") from error


def _knock(address: str) -> None:
    """Open a socket first, if the address has host and port: Ray alone retries for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _fetch(reference: Any, what: str) -> Any:
    """The result of a call.

    Raises:
        ShardError: it raised, or its worker is gone for good.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        failure = ShardError(f"{what}: {type(error.cause).__name__}: {error.cause}")
        failure.add_note(str(error))
    except ray.exceptions.RayActorError as error:
        failure = ShardError(f"{what}: its worker died {RESTARTS + 1} times (out of memory?)")
        failure.add_note(str(error))
    except ray.exceptions.RayError as error:
        failure = ShardError(f"{what}: {error}")
    raise failure from None


def _library() -> list[str]:
    """The library and the packages whose entry points add methods to it."""
    groups = [registry.group for registry in REGISTRIES.values() if isinstance(registry, Registry)]
    added = {
        target.partition(".")[0].partition(":")[0] for group in groups for target in installed(group).values()
    }
    return sorted({e2h_pipeline.__name__, *added})


def _code_hash(package: str) -> str:
    """Hash of the names and contents of a package's Python files; of none if not installed."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        files = origin.parent.rglob("*.py") if spec.submodule_search_locations else [origin]
        for file in sorted(files):
            digest.update(f"{file.relative_to(origin.parent)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
