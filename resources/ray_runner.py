"""Shards on a Ray cluster (Ray core): the runner of `E2H_COMPUTE=ray`.

One worker process for each share of the cluster (some cores, a GPU where the stage wants one), for as long as the
stage has shards. A worker is an actor, not a task, because of what it holds: a task process that keeps its
model may next be given another GPU, while its memory lies on the first (why Ray ends GPU task processes after
each task); an actor has one GPU for life, and loads its model once.

What happens to a shard whose worker or node dies is left to Ray: it restarts the worker, elsewhere if need be,
and calls it again. Shards are pure functions, so that is safe, and the result is the same.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import e2h_pipeline
from e2h_pipeline.artifacts.shards import Call

if TYPE_CHECKING:
    import pyarrow as pa

RESTARTS = 3
"""Times that Ray starts a worker anew in a stage: a shard that needs too much memory would go on for ever."""

_CONNECT_SECONDS = 30.0

# What shapes results and is not shipped with the code. Ray itself compares its own and Python's version.
_PACKAGES = (
    "latex2sympy2-extended", "math-verify", "mpmath", "numpy", "pyarrow", "sympy",
    "tokenizers", "torch", "transformers", "vllm",
)  # fmt: skip


class ShardError(RuntimeError):
    """A shard that cannot be made on the cluster; the message names it, a note holds the worker's traceback."""


class RayRunner:
    """Runs shards on a cluster: the one at `address`, or one of this machine, started for this process alone.

    Workers read their inputs by path: all nodes must see the folders of E2H_HOME and of models at the same place.
    Tables come back through Ray's object store, at most one from each worker at a time, so memory does not grow
    with the number of shards. The project's code is sent along; packages must be installed on each node
    in the versions that are here, which is checked.

    Args:
        address: as `ray.init` takes it; "" starts a local cluster.
        gpu: each worker gets a GPU, where the cluster has any.
        threads: cores of a worker, and its torch threads; OMP_NUM_THREADS or 1 where 0.
    """

    def __init__(self, address: str = "", *, gpu: bool = False, threads: int = 0) -> None:
        self.address = address
        self.gpu = gpu
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS", "1"))

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        """See `Runner.run`.

        Raises:
            ShardError: a shard raised; a worker died `RESTARTS` + 1 times, or has other versions than this
                process; the cluster cannot be reached or has no room for a worker.
        """
        import ray

        _connect(self.address)
        workers = [self._worker() for _ in range(min(len(calls), self._room()))]
        ready = {worker.check.remote(_versions()): worker for worker in workers}
        busy: dict[Any, tuple[str, Any]] = {}  # the call under way: its shard and its worker
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
                else:  # room for a worker that was lost with its node and still has a shard
                    ray.kill(worker)
                    workers.remove(worker)
                del reference  # or the object store would hold the table
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
                max_task_retries=-1,  # or they are used up while Ray finds out that a node is lost
                runtime_env={"env_vars": environment},
            )
            .remote()
        )

    def _on_gpus(self) -> bool:
        import ray

        return self.gpu and ray.cluster_resources().get("GPU", 0) >= 1

    def _room(self) -> int:
        """How many workers fit."""
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


class _Worker:
    """What runs in a worker process."""

    def check(self, wanted: Mapping[str, str | None]) -> None:
        """Refuse to work with packages that could give other results than the driver's.

        Raises:
            RuntimeError: naming them.
        """
        found = _versions()
        other = [
            f"{name} {found[name]} instead of {wanted[name]}"
            for name in wanted
            if found[name] != wanted[name]
        ]
        if other:
            raise RuntimeError(
                f"a node has {', '.join(other)}: install the versions of constraints.txt there"
            )

    def call(self, function: Callable[..., pa.Table], *arguments: Any) -> pa.Table:
        """Make a shard."""
        return function(*arguments)


def _connect(address: str) -> None:
    """Join the cluster, or start one; a connection that is there is used."""
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
    """See whether anybody is there, where the address says host and port: Ray tries for many minutes."""
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


def _versions() -> dict[str, str | None]:
    """Versions of the packages that shape results; None for one that is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
