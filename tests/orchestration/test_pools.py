"""Pools: their limits, and stages that take turns for a slot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import dagster as dg
import forked
import pytest
import toy_stages as toy
from tiny_experiment import environment

from e2h_pipeline.orchestration.instance import _set_pool_limits, open_instance
from resources.instance import SlotSafeEventLog

ROOT = Path(__file__).resolve().parents[2]
CORES = 8
POOLS = [f"pool {i}" for i in range(20)]

# One run with a stage in the pool "gpu" that notes its beginning and end.
_RUN = """
import sys
from pathlib import Path
import dagster as dg
import toy_stages as toy
from e2h_pipeline.operations.runner import open_instance

home, key = Path(sys.argv[1]), sys.argv[2]
with open_instance(home) as instance:
    dg.materialize([toy.recipe, toy.toy_timed], instance=instance, partition_key=key, resources=toy.resources(home))
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """SQLite in a folder, as in a home; nothing has set a limit yet."""
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {default_limit: 1, granularity: op}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as found:
        yield found


def limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def test_limits_that_no_person_set_follow_the_host(instance: dg.DagsterInstance) -> None:
    _set_pool_limits(instance, gpu=False, cores=CORES)
    assert limits(instance) == {"cpu": CORES, "gpu": CORES}
    _set_pool_limits(instance, gpu=False, cores=4)  # a smaller machine
    assert limits(instance) == {"cpu": 4, "gpu": 4}
    _set_pool_limits(instance, gpu=True, cores=CORES)  # a GPU was added
    assert limits(instance) == {"cpu": CORES, "gpu": 1}
    _set_pool_limits(instance, gpu=False, cores=CORES)  # a container without the GPU, over the same home
    assert limits(instance) == {"cpu": CORES, "gpu": 1}


@pytest.mark.parametrize("gpu", [False, True])
def test_a_limit_that_a_person_set_stays(instance: dg.DagsterInstance, gpu: bool) -> None:
    instance.event_log_storage.set_concurrency_slots("gpu", 2)
    _set_pool_limits(instance, gpu=gpu, cores=CORES)
    assert limits(instance) == {"cpu": CORES, "gpu": 2}
    instance.event_log_storage.set_concurrency_slots("cpu", 3)  # in place of ours
    _set_pool_limits(instance, gpu=not gpu, cores=4)
    assert limits(instance) == {"cpu": 3, "gpu": 2}


def _claims(folder: str, name: str, start: Barrier, found: Queue[tuple[str, int]]) -> None:
    """Ask for the one slot of each pool in the same instant as the other processes."""
    storage = SlotSafeEventLog(folder)
    start.wait()
    for pool in POOLS:
        claim = storage.claim_concurrency_slot(pool, run_id=name, step_key="step")
        found.put((pool, int(claim.is_claimed)))
        start.wait()


def test_of_processes_that_ask_in_the_same_instant_one_gets_the_slot(tmp_path: Path) -> None:
    storage = SlotSafeEventLog(str(tmp_path))
    for pool in POOLS:
        storage.set_concurrency_slots(pool, 1)
    start, found = forked.CONTEXT.Barrier(3, timeout=120), forked.CONTEXT.Queue()
    asking = [
        forked.CONTEXT.Process(target=_claims, args=(str(tmp_path), name, start, found)) for name in "abc"
    ]
    for process in asking:
        process.start()
    taken = Counter[str]()
    for _ in range(len(asking) * len(POOLS)):
        pool, claimed = found.get(timeout=120)
        taken[pool] += claimed
    for process in asking:
        process.join()
    assert taken == dict.fromkeys(POOLS, 1)


def test_runs_that_compete_for_one_slot_take_turns(tmp_path: Path) -> None:
    home, notes = tmp_path / "e2h", tmp_path / "notes"
    notes.mkdir()
    toy.write_recipe(home, toy.RECIPE)
    keys = [f"{toy.KEY}/seed={seed}" for seed in (1, 2, 3)]
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", keys)
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TOY_NOTES": str(notes)}
    with ThreadPoolExecutor(len(keys)) as pool:
        runs = list(pool.map(lambda key: forked.run(_RUN, [home, key], environment(home) | path), keys))
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr[-3000:]
    spans = sorted(json.loads(note.read_text()) for note in notes.iterdir())
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans
