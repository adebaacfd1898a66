"""Domains with other levels, and an aggregation of an installed package, without a change of the
library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.generalization import evaluator_generalization
from e2h_pipeline.evaluation.graded import PoolFiles
from e2h_pipeline.evaluation.moved import moved_rows
from e2h_pipeline.evaluation.policies import benchmark_metrics
from e2h_pipeline.evaluation.pooling import pool_arm, pooled_rows
from e2h_pipeline.evaluation.results import result_rows
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.recipe import Evaluation
from e2h_pipeline.recipe.plugins import forget
from e2h_pipeline.statistics.bootstrap import Bootstrap

Run = Callable[..., dict[str, Any]]

# Levels of the six problems, which of them are easy, and the groups that follow.
WORLDS = [
    pytest.param([1, 1, 2, 2, 3, 3], (1,), ["1", "2", "3", "easy", "hard", "all"], id="three"),
    pytest.param([1, 2, 3, 5, 6, 7], (1, 2), [*"123567", "easy", "hard", "all"], id="seven"),
    pytest.param([1, 10, None, 2, None, 10], (1,), ["1", "2", "10", "easy", "hard", "all"], id="unknown"),
    pytest.param([None] * 6, (1,), ["all"], id="none"),
]


def relevel(world: Path, levels: list[int | None]) -> None:
    """Give the world's problems other levels. The hard problem after them keeps its level."""
    file = world / "gold" / "data.parquet"
    table = read_table(file)
    column = pa.array([*levels, 1], pa.int8())
    write_table(file, table.set_column(table.column_names.index("level"), "level", column))


def groups_of(path: Path) -> list[str]:
    return list(dict.fromkeys(read_table(path)["levels"].to_pylist()))


@pytest.mark.parametrize(("levels", "easy", "groups"), WORLDS)
def test_groups_follow_the_levels_of_the_data(
    world: Path, rerank: Run, levels: list[int | None], easy: tuple[int, ...], groups: list[str]
) -> None:
    relevel(world, levels)
    rerank(easy_levels=easy)
    evaluation = Evaluation(bootstrap=100, grader="exact", easy_levels=easy)
    benchmark_metrics(
        {"sft": world / "sft", "rl": world / "rl"},
        world / "rerank",
        world / "gold",
        LADDER,
        evaluation,
        Work(world / "benchmark", world / "work", recipe_seed=0),
    )
    for name in ("metrics", "differences", "lengths"):
        assert groups_of(world / "benchmark" / f"{name}.parquet") == groups, name
    values = read_table(world / "benchmark" / "values.parquet")
    found = dict(zip(values["problem_id"].to_pylist(), values["level"].to_pylist(), strict=True))
    assert [found[f"p{i}"] for i in range(6)] == levels
    chosen = read_table(world / "rerank" / "choices.parquet").to_pylist()
    assert all(row["level"] == levels[int(row["problem_id"][1:])] for row in chosen)
    # Later tables have the same groups in the same order.
    metrics = read_table(world / "benchmark" / "metrics.parquet").to_pylist()
    pooled = pooled_rows(pool_arm("toy", {"one": values, "two": values}), easy, Bootstrap(100))
    for rows in (result_rows("toy", metrics, {}), pooled):
        assert list(dict.fromkeys(row["levels"] for row in rows)) == groups
    moved = moved_rows(metrics, metrics, (values, values), easy, Bootstrap(100))
    assert all(row["paired"] and row["difference"] == 0 for row in moved)
    counts = {row["levels"]: row["problems"] for row in metrics}
    known = [level for level in levels if level is not None]
    assert counts["all"] == 6 and counts.get("easy", 0) + counts.get("hard", 0) == len(known)


def test_an_evaluator_is_compared_with_easy_at_every_harder_level(world: Path) -> None:
    relevel(world, [1, 2, 3, 5, None, 7])
    evaluator_generalization(
        PoolFiles(world / "samples", world / "scores", world / "gold", "prm"),
        LADDER,
        step_labels,
        None,
        Evaluation(bootstrap=100, grader="exact", easy_levels=(1, 2)),
        Work(world / "out", world / "work", recipe_seed=0),
    )
    rows = read_table(world / "out" / "metrics.parquet").to_pylist()
    changed = [row["levels"] for row in rows if row["metric"] == "generator_accuracy_change"]
    assert changed == ["3", "5", "7", "hard"]


PACKAGE = '''
import numpy as np

def worst_two(log_probabilities, starts, lengths):
    """The mean of the two worst steps."""
    runs = (log_probabilities[s : s + n] for s, n in zip(starts, lengths, strict=True))
    return np.array([np.sort(run)[:2].mean() for run in runs])
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed package with an aggregation `worst_two`."""
    site = tmp_path / "site"
    (site / "toy_aggregation-1.dist-info").mkdir(parents=True)
    (site / "toy_aggregation.py").write_text(PACKAGE)
    (site / "toy_aggregation-1.dist-info" / "METADATA").write_text("Name: toy_aggregation\nVersion: 1\n")
    (site / "toy_aggregation-1.dist-info" / "entry_points.txt").write_text(
        "[e2h.aggregations]\nworst_two = toy_aggregation:worst_two\n"
    )
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield
    sys.modules.pop("toy_aggregation", None)
    monkeypatch.undo()
    forget()


def test_an_aggregation_of_a_package_is_in_the_tables(world: Path, rerank: Run, plugin: None) -> None:
    summary = rerank(aggregations=("min", "worst_two"))
    assert {"weighted-vote worst_two", "best-of-n worst_two"} <= summary["hard_accuracy"].keys()
    rows = read_table(world / "rerank" / "metrics.parquet").to_pylist()
    assert {row["aggregation"] for row in rows} == {"", "min", "worst_two"}


def test_a_word_that_nothing_implements_is_refused(rerank: Run) -> None:
    with pytest.raises(ValueError, match="no 'worst_two'"):
        rerank(aggregations=("worst_two",))
