"""Numbers of past experiments, as commands and pages show them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import toy_stages as toy

from assets.checks import training_not_stopped
from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.orchestration.experiments import Experiments
from e2h_pipeline.stages.asset import stage
from resources.store import DagsterLedger

KEYS = [toy.KEY, f"{toy.KEY}/seed=1"]
WHY = "kl, to the SFT policy, is 9.00 per token, above rl.max_kl=1.0; raise rl.kl"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", KEYS)
        yield found


@pytest.fixture
def stages() -> Iterator[list[dg.AssetsDefinition]]:
    """A policy whose training is stopped for even seeds, and its numbers."""
    with toy.stages_restored():
        policy = stage(name="rl_policy", group="toy", recipe=["seed"])(_train)
        metrics = stage(
            name="benchmark_metrics", group="toy", reads=["rl_policy"], recipe=["evaluation"], audit=True
        )(_measure)
        yield [toy.recipe, policy, metrics]


def _train(job: StageJob) -> dict[str, Any]:
    """Train."""
    (job.out / "weights.txt").write_text(str(job.recipe.seed))
    return {"updates": 7, "best_update": 5, "stopped": None if job.recipe.seed % 2 else WHY}


def _measure(job: StageJob) -> dict[str, Any]:
    """Measure."""
    named = {
        "benchmark": "B",
        "grader": "exact/1",
        "method": "greedy",
        "evaluator": "",
        "aggregation": "",
        "n": 1,
    }
    number = {"levels": "all", "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "problems": 2}
    metrics = [{**named, **number, "policy": policy} for policy in ("sft", "rl")]
    values = [
        {**named, "policy": policy, "problem_id": name, "level": 1, "value": 0.5}
        for policy in ("sft", "rl")
        for name in "ab"
    ]
    write_table(job.out / "metrics.parquet", pa.Table.from_pylist(metrics))
    write_table(job.out / "values.parquet", pa.Table.from_pylist(values))
    return {}


def test_numbers_of_a_policy_that_a_guard_stopped_say_so_everywhere(
    tmp_path: Path, instance: dg.DagsterInstance, stages: list[dg.AssetsDefinition]
) -> None:
    found = []
    for key in KEYS:
        result = dg.materialize(
            [*stages, training_not_stopped],
            instance=instance,
            partition_key=key,
            resources=toy.resources(tmp_path),
        )
        assert result.success  # the last good policy is kept, and measured
        found += result.get_asset_check_evaluations()
    assert [(check.passed, check.severity.value) for check in found] == [(False, "WARN"), (True, "WARN")]
    said = f"stopped after 7 updates: {WHY}; the policy is that of update 5"
    assert found[0].description == said
    assert found[0].metadata["best_update"].value == 5

    experiments = Experiments(DagsterLedger(instance), ArtifactStore(tmp_path))
    stopped, whole = (experiments.results(key) for key in KEYS)
    assert {row["policy"]: row.get("stopped") for row in stopped} == {"sft": None, "rl": said}
    assert not any("stopped" in row for row in whole)
    pooled = experiments.pooled(KEYS).rows
    assert {row["policy"]: row.get("stopped") for row in pooled} == {"sft": None, "rl": f"{toy.KEY}: {said}"}


def _buy(job: StageJob) -> dict[str, Any]:
    """Buy ten labels, and ten more for each seed."""
    (job.out / "labels.txt").write_text(str(job.recipe.seed))
    count = 10 * (job.recipe.seed + 1)
    return {"labels_bought": count, "grader": "exact/1"}


def test_every_number_says_how_many_labels_it_took(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with toy.stages_restored():
        steps = stage(name="easy_step_labels", group="toy", recipe=["seed", "labels"])(_buy)
        outcomes = stage(name="easy_outcome_labels", group="toy", recipe=["seed"])(_buy)
        policy = stage(name="rl_policy", group="toy", recipe=["seed"], reads=["easy_step_labels"])(_train)
        metrics = stage(
            name="benchmark_metrics",
            group="toy",
            reads=["rl_policy", "easy_outcome_labels"],
            recipe=["evaluation"],
            audit=True,
        )(_measure)
        for key in KEYS:
            assert dg.materialize(
                [toy.recipe, steps, outcomes, policy, metrics],
                instance=instance,
                partition_key=key,
                resources=toy.resources(tmp_path),
            ).success
        experiments = Experiments(DagsterLedger(instance), ArtifactStore(tmp_path))
        first = experiments.results(KEYS[0])[0]["labels_bought"]
        assert first == {"easy_outcome_labels": {"exact/1": 10}, "easy_step_labels": {"checker": 10}}
        pooled = experiments.pooled(KEYS).rows[0]["labels_bought"]
        assert pooled == {"easy_outcome_labels": {"exact/1": 15}, "easy_step_labels": {"checker": 15}}
