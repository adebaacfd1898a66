"""Pools: their limits, and stages that take turns for a slot."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import Queue
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import forked
import pytest
import toy_stages as toy
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_experiment import environment

from e2h_pipeline.orchestration import leftovers
from e2h_pipeline.orchestration.instance import _set_pool_limits, open_instance
from resources import slots
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


# One run of a stage that may use several cards, which ends when it is told to.
_SHARED = """
import sys
from pathlib import Path
import dagster as dg
import toy_stages as toy
from e2h_pipeline.operations.runner import open_instance
from e2h_pipeline.orchestration.leftovers import own_tags

home, key = Path(sys.argv[1]), sys.argv[2]
with open_instance(home) as instance:
    dg.materialize([toy.recipe, toy.toy_shared], instance=instance, partition_key=key,
        resources=toy.resources(home), tags=own_tags())
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


# Steps that take several slots

SLOTS = 4
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> SlotSafeEventLog:
    return SlotSafeEventLog(str(tmp_path_factory.mktemp("slots")))


class Model(NamedTuple):
    """What the steps that asked for slots hold and wait for.

    Attributes:
        waiting: numbers of steps, the one to be served first in front.
    """

    wants: dict[int, int]
    waiting: list[int]
    holding: set[int]

    def free(self) -> int:
        return SLOTS - sum(min(self.wants[step], SLOTS) for step in self.holding)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(1, SLOTS + 2)),
            st.tuples(st.just("again"), st.integers(0, 5)),
            st.tuples(st.just("end"), st.integers(0, 5)),
        ),
        min_size=4,
        max_size=14,
    )
)
@settings(max_examples=12, deadline=None)
def test_steps_get_all_their_slots_in_turn_or_none(
    storage: SlotSafeEventLog, acts: list[tuple[str, int]]
) -> None:
    """Against a model: a step is served if it is the first that waits, and its slots are free."""
    model = Model({}, [], set())
    pool = f"pool {next(NUMBERS)}"
    storage.set_concurrency_slots(pool, SLOTS)
    with pytest.MonkeyPatch.context() as patch:
        for act, number in acts:
            if act == "ask":
                step = len(model.wants)
                model.wants[step] = number
                model.waiting.append(step)
                patch.setitem(slots.WANTED, f"step {step}", lambda number=number: number)
                _ask(storage, pool, model, step)
            elif act == "again" and model.waiting:
                _ask(storage, pool, model, model.waiting[number % len(model.waiting)])
            elif act == "end" and model.holding:
                step = sorted(model.holding)[number % len(model.holding)]
                storage.free_concurrency_slot_for_step(f"{pool}/{step}", f"step {step}")
                model.holding.remove(step)
            _check(storage, pool, model)
        while model.waiting or model.holding:  # nobody waits for ever
            for step in sorted(model.holding):
                storage.free_concurrency_slots_for_run(f"{pool}/{step}")
            model.holding.clear()
            assert _ask(storage, pool, model, model.waiting[0]) if model.waiting else True
            _check(storage, pool, model)


def _ask(storage: SlotSafeEventLog, pool: str, model: Model, step: int) -> bool:
    """Let a step ask for its slots, and check the answer."""
    claim = storage.claim_concurrency_slot(pool, f"{pool}/{step}", f"step {step}")
    served = claim.is_claimed
    if served:
        assert model.waiting[0] == step and model.free() >= min(model.wants[step], SLOTS)
        model.waiting.remove(step)
        model.holding.add(step)
    elif model.waiting[0] == step:
        assert not claim.is_assigned or model.free() < min(model.wants[step], SLOTS)
    return served


def _check(storage: SlotSafeEventLog, pool: str, model: Model) -> None:
    held = Counter(slot.step_key for slot in storage.get_concurrency_info(pool).claimed_slots)
    assert held == {f"step {step}": min(model.wants[step], SLOTS) for step in model.holding}


def test_a_higher_priority_is_served_first(
    storage: SlotSafeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.set_concurrency_slots("gpu", 2)
    monkeypatch.setitem(slots.WANTED, "large", lambda: 2)
    assert storage.claim_concurrency_slot("gpu", "a", "small").is_claimed
    assert not storage.claim_concurrency_slot("gpu", "b", "large").is_claimed
    assert not storage.claim_concurrency_slot("gpu", "c", "small").is_claimed  # it would keep b waiting
    storage.free_concurrency_slots_for_run("a")
    assert not storage.claim_concurrency_slot("gpu", "d", "small", priority=1).is_assigned
    assert storage.claim_concurrency_slot("gpu", "b", "large").is_claimed


def test_a_pool_without_slots_is_closed(storage: SlotSafeEventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slots.WANTED, "large", lambda: 2)
    storage.set_concurrency_slots("closed", 0)
    assert not storage.claim_concurrency_slot("closed", "a", "large").is_claimed
    storage.set_concurrency_slots("closed", 1)  # fewer than it wants
    assert storage.claim_concurrency_slot("closed", "a", "large").is_claimed


@pytest.mark.parametrize("compute", ["accelerate", "subprocess"])
def test_a_stage_takes_a_slot_for_each_of_its_processes(
    compute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_COMPUTE", compute)
    monkeypatch.setenv("E2H_PROCESSES", "8")
    several = 8 if compute == "accelerate" else 1
    wanted = {name: found() for name, found in slots.WANTED.items() if name in ("toy_policy", "toy_shared")}
    assert wanted == {"toy_policy": 1, "toy_shared": several}


ON_TWO_CARDS = {"E2H_COMPUTE": "accelerate", "E2H_PROCESSES": "2"}


def test_runs_whose_stages_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    """Each takes two of three slots."""
    home, notes = tmp_path / "e2h", tmp_path / "notes"
    notes.mkdir()
    toy.write_recipe(home, toy.RECIPE)
    keys = [f"{toy.KEY}/seed={seed}" for seed in (1, 2, 3)]
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", keys)
        instance.event_log_storage.set_concurrency_slots("gpu", 3)
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TOY_NOTES": str(notes), **ON_TWO_CARDS}
    with ThreadPoolExecutor(len(keys)) as pool:
        runs = list(pool.map(lambda key: forked.run(_RUN, [home, key], environment(home) | path), keys))
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr[-3000:]
    spans = sorted(json.loads(note.read_text()) for note in notes.iterdir())
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A home whose `toy_shared` takes two of three slots. It is `tmp_path`, and has the notes."""
    toy.write_recipe(tmp_path, toy.RECIPE)
    for name, value in {"TOY_NOTES": str(tmp_path), **ON_TWO_CARDS}.items():
        monkeypatch.setenv(name, value)
    with open_instance(tmp_path) as found:
        found.add_dynamic_partitions("experiment", [toy.KEY])
        found.event_log_storage.set_concurrency_slots("gpu", 3)
        yield found


def _held(instance: dg.DagsterInstance) -> list[str | None]:
    """Holders of the slots of the pool "gpu"."""
    return [slot.step_key for slot in instance.event_log_storage.get_concurrency_info("gpu").claimed_slots]


def _start_shared(home: Path) -> ForkServerProcess:
    """Run `toy_shared`, and wait until it has begun."""
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    run = forked.start(_SHARED, [home, toy.KEY], environment(home) | path, home)
    deadline = time.monotonic() + 120
    while not list(home.glob("*.began")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return run


@pytest.mark.parametrize("end", ["success", "failure"])
def test_all_slots_of_a_stage_are_freed(end: str, shared: dg.DagsterInstance, tmp_path: Path) -> None:
    run = _start_shared(tmp_path)
    held = _held(shared)
    (tmp_path / end).touch()
    run.join()
    assert (run.exitcode == 0) == (end == "success")
    assert held == ["toy_shared", "toy_shared"]
    assert _held(shared) == []


def test_all_slots_of_a_killed_run_are_freed(shared: dg.DagsterInstance, tmp_path: Path) -> None:
    run = _start_shared(tmp_path)
    run.kill()
    run.join()
    assert _held(shared) == ["toy_shared", "toy_shared"]
    leftovers.release_dead_runs(shared)
    assert _held(shared) == []
