"""The sample pool through Dagster: two experiments with different N share samples, also damaged
ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import toy_stages as toy

from assets.base_model import base_model
from assets.benchmark_samples import benchmark_samples
from assets.easy_solutions import easy_solutions
from assets.problem_source import problem_source
from assets.problems import benchmark_questions, easy_problems
from assets.recipe import recipe
from assets.sft_policy import sft_policy

RECIPE = """
description: a pool that grows
problems: {validation: 4, easy_limit: 8, benchmark_limit: 10, train_per_level: 10}
sft: {epochs: 1, batch_size: 8}
sampling: {samples: 4, max_new_tokens: 16, temperature: 1.0, shard_questions: 5, shard_samples: 4}
"""
LARGE = f"{toy.KEY}/sampling.samples=16"
BEFORE = [recipe, problem_source, easy_problems, benchmark_questions, base_model, easy_solutions, sft_policy]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("experiment", [toy.KEY, LARGE])
        yield found


def _draw(home: Path, instance: dg.DagsterInstance, key: str, assets: list[Any]) -> dict[str, Any]:
    """Materialize; Dagster's metadata of the pool."""
    result = dg.materialize(
        assets,
        instance=instance,
        partition_key=key,
        resources=toy.resources(home),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    (event,) = result.asset_materializations_for_node("benchmark_samples")
    assert event.tags
    told = {name: value.value for name, value in event.metadata.items() if hasattr(value, "value")}
    return {**told, "version": event.tags["dagster/data_version"]}


def test_n_to_4n_costs_3n_and_damage_costs_its_shard(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    home = tmp_path / "grown"
    toy.write_recipe(home, RECIPE)
    small = _draw(home, instance, toy.KEY, [*BEFORE, benchmark_samples])
    assert (small["summary/drawn"], small["summary/reused"]) == (40, 0)
    large = _draw(home, instance, LARGE, [*BEFORE, benchmark_samples])
    assert (large["summary/drawn"], large["summary/reused"]) == (120, 40)

    victim = (
        Path(str(small["path"])) / "data" / "part-00001-000000.parquet"
    )  # samples 0 to 3 of 5 questions, in both
    victim.write_bytes(victim.read_bytes()[:-7] + b"garbage")
    for key, folder, drawn in ((LARGE, large["path"], 20), (toy.KEY, small["path"], 0)):
        with pytest.raises(Exception, match=rf"part-00001-000000\.parquet: .* delete {folder}"):
            _draw(home, instance, key, [recipe, benchmark_samples])
        shutil.rmtree(str(folder))
        again = _draw(home, instance, key, [recipe, benchmark_samples])
        assert again["summary/drawn"] == drawn
        assert again["version"] == {LARGE: large, toy.KEY: small}[key]["version"]

    elsewhere = tmp_path / "straight"
    toy.write_recipe(elsewhere, RECIPE)
    with dg.DagsterInstance.ephemeral() as other:
        other.add_dynamic_partitions("experiment", [LARGE])
        straight = _draw(elsewhere, other, LARGE, [*BEFORE, benchmark_samples])
    assert (straight["summary/drawn"], straight["version"]) == (160, large["version"])
