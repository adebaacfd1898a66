"""Numbers of toy experiments, for pages over several: seeds that differ, and a recipe that shares all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import toy_stages as toy

from e2h_pipeline.artifacts.job import StageJob
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table, values_table
from e2h_pipeline.orchestration.experiments import Experiments
from e2h_pipeline.stages.asset import stage
from e2h_pipeline.statistics.bootstrap import Bootstrap
from resources.store import DagsterLedger

KEYS = [toy.KEY, f"{toy.KEY}/seed=1", f"{toy.KEY}/seed=2"]
SAME = f"{toy.KEY}/sft.epochs=9"  # no stage reads it: its artifacts are those of the first
BEGUN = f"{toy.KEY}/seed=3"  # has a recipe alone
LEVELS = np.repeat([1, 4], 20)


def _train(job: StageJob) -> dict[str, Any]:
    """Train; a guard stops seed 1, and seed 2 has no curves."""
    (job.out / "weights.txt").write_text(str(job.recipe.seed))
    if job.recipe.seed != 2:
        points = [{"update": u, "reward": 0.1 * u, "kl": 0.0} for u in range(3)]
        (job.out / "curves.jsonl").write_text("\n".join(map(json.dumps, points)))
    return {"stopped": "KL" if job.recipe.seed == 1 else None, "updates": 3, "best_update": 2}


def _measure(job: StageJob) -> dict[str, Any]:
    """Measure: RL gains with the seed, clearly for seed 2; seed 2 has no votes."""
    seed = int((job.path("rl_policy") / "weights.txt").read_text())
    answers = np.random.default_rng(0).random(len(LEVELS))
    values = {
        Method("sft", "greedy", 1): answers,
        Method("rl", "greedy", 1): answers + (0.0, 0.001, 0.3)[seed] * np.tile([0.9, 1.1], len(LEVELS) // 2),
    }
    if seed != 2:
        values |= {Method("sft", "majority", n): answers + n / 100 for n in (1, 2, 4)}
    board = Scoreboard("TOY", "exact/1", tuple(f"p{i:02}" for i in range(len(LEVELS))), LEVELS, values)
    write_table(job.out / "metrics.parquet", metrics_table(board, (1, 2, 3), Bootstrap(100)))
    write_table(job.out / "values.parquet", values_table(board))
    return {"benchmark": board.benchmark}


@contextmanager
def measured(home: Path) -> Iterator[Experiments]:
    """The experiments in a new home."""
    with dg.DagsterInstance.ephemeral() as instance, toy.stages_restored():
        instance.add_dynamic_partitions("experiment", [*KEYS, SAME, BEGUN])
        policy = stage(name="rl_policy", group="toy", recipe=["seed"])(_train)
        metrics = stage(
            name="benchmark_metrics", group="toy", reads=["rl_policy"], recipe=["evaluation"], audit=True
        )(_measure)
        for key in (*KEYS, SAME, BEGUN):
            stages = [toy.recipe] if key == BEGUN else [toy.recipe, policy, metrics]
            resources = toy.resources(home)
            assert dg.materialize(stages, instance=instance, partition_key=key, resources=resources).success
        yield Experiments(DagsterLedger(instance), ArtifactStore(home))
