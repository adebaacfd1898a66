import numpy as np
import pytest

from e2h_pipeline.evaluation.step_benchmarks.prm_bench import (
    confusion,
    prm_bench_rows,
    prm_score,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepSolution
from e2h_pipeline.statistics.bootstrap import Bootstrap


def test_worked_numbers() -> None:
    # Steps right, wrong, wrong, right with scores .9 .8 .2 .4: TP 1, FP 1, TN 1, FN 1; both F1 are
    # 1/2.
    counts = confusion([0.9, 0.8, 0.2, 0.4], frozenset({1, 2}), 0.5)
    assert counts == (1, 1, 1, 1)
    assert prm_score(np.array(counts)) == pytest.approx(0.5)
    # TP 6, FP 1, TN 2, FN 1: F1 = 12/14, wrong side 4/6.
    assert prm_score(np.array([6, 1, 2, 1])) == pytest.approx((12 / 14 + 4 / 6) / 2)
    assert prm_score(np.array([6, 0, 0, 2]), both_sides=False) == pytest.approx(12 / 14)
    assert prm_score(np.zeros(4)) == 0


def solution(group: str, problem: int, wrong: set[int]) -> StepSolution:
    return StepSolution(f"p{problem}", group, f"p{problem}", 0, "q", ("a", "b", "c"), frozenset(wrong))


def test_classes_categories_and_overall() -> None:
    solutions = [solution("circular", p, {1}) for p in range(6)]
    solutions += [solution("multi_solutions", p, set()) for p in range(6)]
    # The circular ones are judged perfectly; of the others one step in three is refused.
    scores = [[0.9, 0.1, 0.9]] * 6 + [[0.9, 0.9, 0.1]] * 6
    rows = {r["group"]: r for r in prm_bench_rows(solutions, scores, 0.5, Bootstrap(200))}
    assert rows["circular"]["value"] == rows["simplicity"]["value"] == 1
    assert rows["multi_solutions"]["value"] == pytest.approx(4 / 5)  # TP 12, FN 6
    assert rows["sensitivity"]["value"] == pytest.approx(4 / 5)
    # Pooled: TP 24, FP 0, TN 6, FN 6.
    assert rows["overall"]["value"] == pytest.approx((48 / 54 + 12 / 18) / 2)
    assert rows["overall"]["count"] == 12 and "soundness" not in rows
    assert rows["circular"]["ci_low"] == rows["circular"]["ci_high"] == 1
