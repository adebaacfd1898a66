"""Dagster's records read from its database, without Dagster: they must say what Dagster says."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from planted_checks import WHY, report_check

from e2h_pipeline.artifacts.home import HomeError
from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.orchestration.instance import open_instance
from e2h_pipeline.orchestration.reading import open_ledger
from resources.ledger import SqliteLedger, latest_artifact
from resources.store import ARTIFACT_KEY, SEAL, DagsterLedger

KEYS = ["a", "b", "c"]
ASSETS = ["toy_easy", "easy_problems"]
CHECKS = [("easy_problems", "split_integrity")]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as found:
        yield found


def _report(instance: dg.DagsterInstance, asset: str, key: str, run: str, metadata: dict[str, str]) -> None:
    made = dg.AssetMaterialization(asset, partition=key, metadata=metadata)
    if run:
        data = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            "planted",
            event_specific_data=dg._core.events.StepMaterializationData(made),  # type: ignore[attr-defined]
        )
        instance.report_dagster_event(data, run)
    else:
        instance.report_runless_asset_event(made)


@pytest.mark.parametrize("seed", range(3))
def test_both_readers_say_the_same_of_any_records(
    home: Path, instance: dg.DagsterInstance, seed: int
) -> None:
    """Runs, runs that are lost, reports from outside, events without a key, checks, and wiped assets."""
    draw = random.Random(seed)
    instance.add_dynamic_partitions("experiment", draw.sample(KEYS, 3))
    runs = [instance.create_run_for_job(_job()).run_id, "0" * 36, ""]
    for number in range(20):
        asset, key, run = draw.choice(ASSETS), draw.choice(KEYS), draw.choice(runs)
        metadata = {ARTIFACT_KEY: f"key {number}", SEAL: f"seal {number}"}
        kept = {name: text for name, text in metadata.items() if draw.random() < 0.8}
        what = draw.random()
        if what < 0.6:
            _report(instance, asset, key, run, kept)
        elif what < 0.9:
            report_check(instance, key, passed=draw.random() < 0.5)
        elif what < 0.95:
            instance.wipe_assets([dg.AssetKey(asset)])
    told, read = DagsterLedger(instance), SqliteLedger(home / "dagster")
    assert read.experiments() == told.experiments()
    for asset in ASSETS:
        for key in KEYS:
            assert read.latest(asset, key) == told.latest(asset, key)
    for run in runs[:2]:
        assert read.seals(run) == told.seals(run)
    assert read.failed_checks(CHECKS, KEYS) == told.failed_checks(CHECKS, KEYS)


def _job() -> dg.JobDefinition:
    return dg.GraphDefinition(name="nothing").to_job()


def test_a_check_reported_from_outside_says_nothing(home: Path, instance: dg.DagsterInstance) -> None:
    read = SqliteLedger(home / "dagster")
    verdict = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("easy_problems"),
        check_name="split_integrity",
        passed=True,
        partition="a",
        metadata={},
    )
    report_check(instance, "a", passed=False)
    instance.report_runless_asset_event(verdict)
    assert read.failed_checks(CHECKS, KEYS) == {
        "a": [f"check split_integrity of easy_problems failed: {WHY}"]
    }
    report_check(instance, "a", passed=True)
    assert read.failed_checks(CHECKS, KEYS) == {}


def test_artifacts_are_found_without_dagster_and_forged_ones_are_refused(
    home: Path, instance: dg.DagsterInstance
) -> None:
    toy.materialize(home, instance, [toy.recipe, toy.toy_easy])
    ledger, store = SqliteLedger(home / "dagster"), ArtifactStore(home)
    found = latest_artifact(ledger, store, "toy_easy", toy.KEY)
    assert found and found.manifest.summary == {"problems": 4}
    assert latest_artifact(ledger, store, "toy_easy", "other") is None
    _report(instance, "toy_easy", toy.KEY, "", {ARTIFACT_KEY: found.key, SEAL: found.manifest.seal})
    with pytest.raises(StoreError, match="from outside a run"):
        latest_artifact(ledger, store, "toy_easy", toy.KEY)
    _report(instance, "toy_easy", "forged", "1" * 36, {ARTIFACT_KEY: found.key, SEAL: "another"})
    assert latest_artifact(ledger, store, "toy_easy", "forged")  # the run that made it recorded its seal
    instance.delete_run(str(found.manifest.run_id))
    with pytest.raises(StoreError, match="not the artifact that Dagster recorded"):
        latest_artifact(ledger, store, "toy_easy", "forged")


def test_other_storages_are_asked_through_dagster_and_nothing_is_made(home: Path) -> None:
    with open_ledger(home) as ledger:
        assert ledger.experiments() == [] and ledger.latest("toy_easy", "a") is None
    assert not home.exists()
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text(
        f"storage: {{sqlite: {{base_dir: {home}/elsewhere}}}}\ntelemetry: {{enabled: false}}\n"
    )
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("experiment", ["a"])
    with open_ledger(home) as ledger:
        assert isinstance(ledger, DagsterLedger) and ledger.experiments() == ["a"]
    if os.geteuid():  # root may write everywhere
        (home / "empty").mkdir(mode=0o500)
        with pytest.raises(HomeError), open_ledger(home / "empty"):
            pass
