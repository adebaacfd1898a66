"""Dagster on a real Postgres server, with the shipped configuration; SQLite with as many writers
for contrast."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dagster as dg
import pytest
import toy_stages as toy
from databases import ROOT, check_nothing_is_lost, postgres, write_at_once

from e2h_pipeline.orchestration import leftovers
from e2h_pipeline.orchestration.instance import _set_pool_limits
from resources import slots
from resources.launcher import HOST_TAG, HostRunLauncher, host

pytestmark = pytest.mark.slow
_STAGES = len(toy.TOYS)


@dg.job
def nothing() -> None:
    """A job for runs that are never executed."""


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Dagster home with deploy/dagster-postgres.yaml."""
    pytest.importorskip("dagster_postgres", reason="pip install -e '.[postgres]'")
    folder = tmp_path_factory.mktemp("dagster")
    shutil.copy(ROOT / "deploy" / "dagster-postgres.yaml", folder / "dagster.yaml")
    with postgres() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2H_POSTGRES_URL", url)
        patch.setenv("DAGSTER_HOME", str(folder))
        yield folder


def test_a_host_without_a_gpu_lets_no_two_stages_on_the_card_of_another(on_postgres: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        for cores in (8, 4):  # two login nodes
            _set_pool_limits(instance, gpu=False, cores=cores)
        found = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert found == {"cpu": 8, "gpu": 1}


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_of_steps_that_ask_in_the_same_instant_only_as_many_as_fit_get_slots(
    on_postgres: Path, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that want `wanted` of 3 slots each."""
    asking, rounds = 6, 15
    monkeypatch.setitem(slots.WANTED, "step", lambda: wanted)
    start = Barrier(asking)

    def ask(number: int) -> list[bool]:
        found = []
        with dg.DagsterInstance.get() as instance:
            storage = instance.event_log_storage
            for round_ in range(rounds):
                start.wait()
                claim = storage.claim_concurrency_slot(
                    f"{wanted} {round_}", f"{wanted} {round_} {number}", "step"
                )
                found.append(claim.is_claimed)
        return found

    with dg.DagsterInstance.get() as instance:
        for round_ in range(rounds):
            instance.event_log_storage.set_concurrency_slots(f"{wanted} {round_}", 3)
        with ThreadPoolExecutor(asking) as pool:
            served = [sum(answers) for answers in zip(*pool.map(ask, range(asking)), strict=True)]
        for round_, count in enumerate(served):
            info = instance.event_log_storage.get_concurrency_info(f"{wanted} {round_}")
            held = Counter(slot.run_id for slot in info.claimed_slots)
            assert count == len(held) and set(held.values()) <= {wanted}
        for run_id in instance.event_log_storage.get_concurrency_run_ids():
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    assert max(served) == 3 // wanted, served


def test_an_experiment_is_recorded_on_postgres(on_postgres: Path, tmp_path: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert isinstance(instance.run_launcher, HostRunLauncher)
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        assert toy.computed(toy.materialize(tmp_path, instance)) == {asset.key.path[0] for asset in toy.TOYS}
    assert not list(on_postgres.rglob("*.db"))
    with dg.DagsterInstance.get() as instance:  # as another process would
        assert instance.get_dynamic_partitions("experiment") == [toy.KEY]
        assert instance.get_materialized_partitions(dg.AssetKey("toy_score")) == {toy.KEY}
        assert toy.computed(toy.materialize(tmp_path, instance)) == set()
        assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_a_run_on_another_host_is_left_alone(on_postgres: Path) -> None:
    """One database, many hosts: only runs of this host, or of a host known to be gone, are
    closed."""
    dead = {leftovers.PID_TAG: str(2**22 + 1)}  # above any pid
    with dg.DagsterInstance.get() as instance:
        tags = {
            "here": {HOST_TAG: host(), **dead},
            "there": {HOST_TAG: "other-host", **dead},
            "unknown": dead,
        }
        ids = {
            name: instance.create_run_for_job(nothing, tags=found, status=dg.DagsterRunStatus.STARTED).run_id
            for name, found in tags.items()
        }
        assert "host is unknown" in next(
            f.text for f in leftovers.dead_runs(instance) if f.subject == ids["unknown"]
        )
        assert leftovers.release_dead_runs(instance) == [ids["here"]]
        left = {finding.subject: finding for finding in leftovers.dead_runs(instance)}
        assert left.keys() == {ids["there"], ids["unknown"]}
        assert "e2h doctor --gone other-host" in left[ids["there"]].text
        (gone,) = [finding for finding in leftovers.dead_runs(instance, ["other-host"]) if finding.mend]
        gone.fix()
        run = instance.get_run_by_id(ids["there"])
        assert run is not None and run.status == dg.DagsterRunStatus.CANCELED


def test_runs_at_once_lose_no_event_on_postgres(on_postgres: Path, tmp_path: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            instance.delete_run(run.run_id)
        instance.event_log_storage.set_concurrency_slots("gpu", 4)
        instance.event_log_storage.set_concurrency_slots("cpu", 8)
    toy.resources(tmp_path)
    write_at_once(tmp_path, on_postgres, processes=4, runs=1)
    with dg.DagsterInstance.get() as instance:
        check_nothing_is_lost(instance, runs=4, stages=_STAGES)


def test_runs_at_once_lose_no_event_on_sqlite(tmp_path: Path) -> None:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    toy.resources(tmp_path)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 2)
        instance.event_log_storage.set_concurrency_slots("cpu", 8)
    write_at_once(tmp_path, folder, processes=4, runs=1)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        check_nothing_is_lost(instance, runs=4, stages=_STAGES)
