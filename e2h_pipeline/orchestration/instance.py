"""The Dagster instance of a home folder, and the slots of its pools."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage

from e2h_pipeline.artifacts.home import HomeError, project_file, writable
from e2h_pipeline.artifacts.locks import alone
from e2h_pipeline.stages.spec import CPU_POOL, EXPERIMENTS, GPU_POOL

_LOCK = ".lock"
_OUR_LIMITS = "e2h/pool_limits"  # a note in Dagster's database
_INSTANCE_CONFIG = """\
telemetry: {enabled: false}
nux: {enabled: false}
run_launcher: {module: resources.launcher, class: HostRunLauncher}
instance_class: {module: resources.instance, class: HomeInstance}
"""


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of a home folder, made on first use by one process alone.

    Raises:
        HomeError: the home can only be read.
    """
    if not writable(home / "dagster"):
        raise HomeError(f"{home} can only be read; set E2H_HOME to a folder that can be written")
    os.environ["DAGSTER_HOME"] = str(dagster_home(home))
    instance = dg.DagsterInstance.get()
    with alone(home / _LOCK):
        _set_pool_limits(instance, _has_gpu(), os.cpu_count() or 1)
    return instance


def open_to_read(home: Path) -> dg.DagsterInstance:
    """`open_instance` for commands that change nothing: a home that can only be read will do.

    Raises:
        HomeError: there is nothing in such a home.
    """
    folder = home / "dagster"
    if writable(folder):
        return open_instance(home)
    if not (folder / "dagster.yaml").exists():
        raise HomeError(f"{home} can only be read, and nothing was ever run in it")
    os.environ["DAGSTER_HOME"] = str(folder)
    return dg.DagsterInstance.get()


def known_experiments(home: Path) -> int:
    """Experiments that Dagster knows in a home; 0 in a home without Dagster, which is not made."""
    folder = home / "dagster"
    if not (folder / "dagster.yaml").exists():
        return 0
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        return len(instance.get_dynamic_partitions(str(EXPERIMENTS.name)))


def _set_pool_limits(instance: dg.DagsterInstance, gpu: bool, cores: int) -> None:
    """Set the slots of the pools: one for the GPUs of a host, and one per core for the CPU.

    Without a GPU everything runs on the CPU, so both pools have a slot per core. dagster.yaml
    cannot set the limit of a single pool. The database notes the values that we set, and we update
    only those: any other value was set by a person. The GPU limit is never raised, because a host
    without a GPU may share the home or its database with a host that has one.
    """
    storage, notes = instance.event_log_storage, instance.daemon_cursor_storage
    ours: dict[str, int] = json.loads(notes.get_cursor_values({_OUR_LIMITS}).get(_OUR_LIMITS, "{}"))
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    one_host = isinstance(instance.run_storage, SqliteRunStorage)
    for_gpus = cores if one_host and not gpu else 1
    wanted = {
        CPU_POOL: cores if one_host else ours.get(CPU_POOL, cores),
        GPU_POOL: min(for_gpus, ours.get(GPU_POOL, for_gpus)),
    }
    for pool, slots in wanted.items():
        if limits.get(pool) == ours.get(pool) != slots:
            storage.set_concurrency_slots(pool, slots)
            ours[pool] = slots
            notes.set_cursor_values({_OUR_LIMITS: json.dumps(ours)})


def _has_gpu() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


def dagster_home(home: Path) -> Path:
    """E2H_HOME/dagster; its dagster.yaml links to the project's, so edits there take effect."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(home / _LOCK):
        _write_config(folder / "dagster.yaml", project_file("dagster.yaml"))
    return folder


def _write_config(config: Path, shipped: Path | None) -> None:
    if shipped and config.is_symlink() and config.resolve() != shipped:
        config.unlink()
    if not config.exists():
        config.unlink(missing_ok=True)
        if shipped:
            config.symlink_to(shipped)
        else:
            config.write_text(_INSTANCE_CONFIG, encoding="utf-8")
