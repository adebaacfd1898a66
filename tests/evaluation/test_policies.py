from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import PoolError
from e2h_pipeline.evaluation.lengths import lengths_schema
from e2h_pipeline.evaluation.policies import benchmark_metrics
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Evaluation


def run(world: Path, benchmark: str = "LADDER500") -> dict[str, Any]:
    return benchmark_metrics(
        {"sft": world / "sft", "rl": world / "rl"},
        world / "rerank",
        world / "gold",
        replace(LADDER, benchmark=benchmark),
        Evaluation(bootstrap=200, grader="exact", easy_levels=(1, 2, 3)),
        Work(world / "benchmark", world / "work", recipe_seed=0),
    )


def test_policies_and_their_difference(world: Path, rerank: Callable[..., dict[str, Any]]) -> None:
    rerank()
    summary = run(world)
    assert summary["greedy_accuracy"]["rl easy"] == 1
    assert summary["greedy_accuracy"]["sft easy"] == pytest.approx(2 / 3, abs=1e-4)
    differences = read_table(world / "benchmark" / "differences.parquet").to_pylist()
    greedy = {r["levels"]: r["difference"] for r in differences if r["first"] == "rl greedy"}
    assert greedy["easy"] == pytest.approx(1 / 3) and greedy["3"] == 1 and greedy["hard"] == 0
    assert ("weighted-vote product", "majority") in {(r["first"], r["second"]) for r in differences}


def test_one_row_per_number_and_rerank_rows_stand(world: Path, rerank: Callable[..., dict[str, Any]]) -> None:
    rerank()
    run(world)
    rows = read_table(world / "benchmark" / "metrics.parquet").to_pylist()
    names = [
        tuple(v for k, v in r.items() if k not in ("accuracy", "ci_low", "ci_high", "problems")) for r in rows
    ]
    assert len(set(names)) == len(names)
    merged = dict(zip(names, rows, strict=True))
    for row in read_table(world / "rerank" / "metrics.parquet").to_pylist():
        name = tuple(v for k, v in row.items() if k not in ("accuracy", "ci_low", "ci_high", "problems"))
        assert merged[name] == row


def test_greedy_and_sampled_lengths_of_every_policy(
    world: Path, rerank: Callable[..., dict[str, Any]]
) -> None:
    rerank()
    run(world)
    table = read_table(world / "benchmark" / "lengths.parquet")
    assert table.schema.equals(lengths_schema())
    rows = {(r["policy"], r["decoding"], r["levels"]): r for r in table.to_pylist()}
    assert len(rows) == table.num_rows == 4 * 8
    # Sample s has 10 (s + 1) tokens. The pool of sft has four samples, the sampled answers of rl
    # two.
    assert rows["sft", "sampled", "all"]["tokens"] == 25
    assert rows["rl", "sampled", "hard"]["tokens"] == 15
    assert rows["rl", "greedy", "easy"]["tokens"] == 10
    assert rows["sft", "sampled", "hard"]["problems"] == 3


def test_results_of_another_benchmark_are_refused(world: Path, rerank: Callable[..., dict[str, Any]]) -> None:
    rerank()
    with pytest.raises(PoolError, match="not results of benchmark MATH500"):
        run(world, "MATH500")
