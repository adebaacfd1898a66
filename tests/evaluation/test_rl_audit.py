import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.definitions import build
from e2h_pipeline.evaluation.graded import PoolError
from e2h_pipeline.evaluation.rl_audit import (
    chosen_window,
    first_parting,
    rank_correlation,
    rl_audit,
    update_windows,
)
from e2h_pipeline.recipe import Evaluation
from e2h_pipeline.stages.spec import STAGES

# (update, problem, level, right, answer, evaluator_score, kl): hard problems h1 (gold 3) and h2
# (gold 5).
ROLLOUTS = [
    (1, "e1", 1, True, "2", 0.9, 0.0),
    (1, "h1", 4, None, "3", 0.5, None),
    (1, "h2", 5, None, "5", 0.3, 0.0),
    (2, "e1", 1, False, None, 0.2, 1.0),
    (2, "h1", 4, None, "4", 0.8, 4.0),
    (2, "h2", 5, None, None, 0.9, 2.0),
]


class Points(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, dict[str, float]] = {}

    def metrics(self, values: Any, step: int) -> None:
        self.found.setdefault(step, {}).update(values)


def audit(folder: Path, gold: dict[str, str], rows: list[tuple[Any, ...]] = ROLLOUTS) -> tuple[Any, Points]:
    names = ("update", "problem_id", "level", "right", "answer", "evaluator_score", "kl")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    extra = {"reward": [0.5] * len(rows), "steps": [2] * len(rows), "tokens": [9] * len(rows)}
    write_table(folder / "rollouts.parquet", pa.table({**columns, **extra}))
    golds = pa.table({"problem_id": list(gold), "answer": list(gold.values())})
    write_table(folder / "gold" / "data.parquet", golds)
    (folder / "out").mkdir(exist_ok=True)
    points = Points()
    evaluation = Evaluation(grader="exact", bootstrap=100, easy_levels=(1, 2, 3))
    work = Work(folder / "out", folder / "work", recipe_seed=0, reporter=points)
    summary = rl_audit(folder / "rollouts.parquet", folder / "gold", 1, evaluation, work)
    return summary, points


def test_curves_by_hand(tmp_path: Path) -> None:
    """Hard rollouts: both right in update 1, none in update 2, while the evaluator goes from .4 to
    .85."""
    summary, points = audit(tmp_path, {"h1": "3", "h2": "5"})
    rows = read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    hard = [row for row in rows if row["levels"] == "hard"]
    assert [row["gold_accuracy"] for row in hard] == [1.0, 0.0]
    assert [row["evaluator_score"] for row in hard] == pytest.approx([0.4, 0.85])
    assert [row["gap"] for row in hard] == pytest.approx([-0.6, 0.85])
    assert [row["kl"] for row in hard] == [0.0, 3.0]
    assert [row["no_answer"] for row in hard] == [0.0, 0.5]
    assert [row["chosen"] for row in hard] == [
        False,
        True,
    ]  # the checkpoint after update 1 drew update 2
    assert summary["gap_hard_last"] == pytest.approx(0.85)
    easy = [row["gold_accuracy"] for row in rows if row["levels"] == "easy"]
    assert easy == [1.0, 0.0]  # the trainer's own verdicts
    assert points.found[2]["gold_accuracy/level_5"] == 0.0
    assert (tmp_path / "out" / "over_optimization.png").stat().st_size > 1000


def test_the_page_is_the_same_to_the_byte(tmp_path: Path) -> None:
    pictures = []
    for name in ("one", "two"):
        audit(tmp_path / name, {"h1": "3", "h2": "5"})
        pictures.append((tmp_path / name / "out" / "over_optimization.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_other_gold_answers_change_the_audit(tmp_path: Path) -> None:
    audit(tmp_path, {"h1": "9", "h2": "9"})
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    rows = read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert {row["gold_accuracy"] for row in rows if row["levels"] == "hard"} == {0.0}
    assert not figures["levels"]["hard"]["over_optimized"]


def test_a_rollout_without_a_verdict_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="problem h2 has neither a verdict nor a gold answer"):
        audit(tmp_path, {"h1": "3"})


def test_windows_take_updates_together_in_order() -> None:
    assert update_windows(np.array([1, 2, 2, 3, 5, 5]), 2) == [(1, 2), (3, 5)]
    assert update_windows(np.array([4, 7]), 20) == [(4, 4), (7, 7)]
    assert chosen_window([(1, 2), (3, 5)], 0) == 0
    assert chosen_window([(1, 2), (3, 5)], 2) == 1
    assert chosen_window([(1, 2), (3, 5)], 5) == 1


def test_a_fall_beside_a_rise_is_found_beyond_noise_alone() -> None:
    gold, score = np.array([0.5, 0.7, 0.4]), np.array([0.4, 0.5, 0.8])
    noise = np.random.default_rng(0).normal(0, 0.02, (500, 3))
    assert first_parting(gold, score, gold + noise, score + noise, 0.95) == (1, 2)
    loud = np.random.default_rng(0).normal(0, 0.3, (500, 3))
    assert first_parting(gold, score, gold + loud, score + loud, 0.95) is None
    assert first_parting(gold, score[::-1], gold + noise, score[::-1] + noise, 0.95) is None


def test_rank_correlation_by_hand() -> None:
    # ranks 1 2.5 2.5 4 and 2 1 3 4: products of deviations sum to 0.75 + 2.25, squares to 4.5 and 5
    found = rank_correlation(np.array([1.0, 2, 2, 3]), np.array([20.0, 10, 30, 40]))
    assert found == pytest.approx(3 / (4.5 * 5) ** 0.5)
    assert rank_correlation(np.array([1.0, 2]), np.array([1.0, 2])) is None
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None


def test_nothing_that_trains_reads_the_audit() -> None:
    build()
    assert STAGES["rl_audit"].audit
    readers = {name for name, stage in STAGES.items() if "rl_audit" in stage.upstream}
    assert readers == {"report"}
