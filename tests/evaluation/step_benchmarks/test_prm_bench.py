import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.step_benchmarks.prm_bench import (
    CLASSES,
    confusion,
    judge_prm_bench,
    prm_bench_rows,
    prm_score,
    read_prm_bench,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepJudge, StepSolution, completion_of
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import MARKED
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


RECORD: dict[str, Any] = {
    "idx": "x-0",
    "classification": "circular",
    "modified_question": "1+2",
    "modified_process": ["1+2=3", "3+1=4"],
    "error_steps": [2, 3],
}


def test_a_file_is_judged(ladder_evaluator: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    records = [RECORD, RECORD, {**RECORD, "classification": "multi_solutions", "error_steps": []}]
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    judge = StepJudge.load(ladder_evaluator)
    summary = judge_prm_bench(judge, file, 0.5, Bootstrap(100), Work(tmp_path, tmp_path / "work"))
    assert (summary["records"], summary["repeated"], summary["errors_off_the_end"]) == (3, 1, 1)
    assert {"circular", "simplicity", "overall"} <= set(summary["prm_score"])
    assert (tmp_path / "prm_scores.parquet").is_file()
    file.write_text(json.dumps({**RECORD, "classification": "typo"}) + "\n", encoding="utf-8")
    with pytest.raises(ProblemError, match=r"bench.jsonl:1: 'classification' is typo"):
        read_prm_bench(file)


def test_prm_bench_is_read_whole(data_dir: Path) -> None:
    bench = read_prm_bench(data_dir / "steps" / "prmbench.jsonl.gz")
    assert bench.counts == {"records": 6216, "repeated": 5, "errors_off_the_end": 151}
    assert {s.group for s in bench.solutions} == set(CLASSES)
    assert not any(s.wrong for s in bench.solutions if s.group == "multi_solutions")
    for s in bench.solutions:
        text, segments = completion_of(s.steps)
        assert {i for own in segments for i in own} == set(range(len(MARKED.parse(text).spans)))
    perfect = [[float(i not in s.wrong) for i in range(len(s.steps))] for s in bench.solutions]
    rows = {r["group"]: r for r in prm_bench_rows(bench.solutions, perfect, 0.5, Bootstrap(100))}
    assert set(rows) == {*CLASSES, "simplicity", "soundness", "sensitivity", "overall"}
    assert all(r["value"] == r["ci_low"] == 1 for r in rows.values())
    # Coin flips: F1 of a class with share q of all steps is q / (q + 1/2).
    rng = np.random.default_rng(0)
    coins = [rng.random(len(s.steps)).tolist() for s in bench.solutions]
    rows = {r["group"]: r for r in prm_bench_rows(bench.solutions, coins, 0.5, Bootstrap(100))}
    wrong = sum(len(s.wrong) for s in bench.solutions) / sum(len(s.steps) for s in bench.solutions)
    expected = ((1 - wrong) / (1.5 - wrong) + wrong / (wrong + 0.5)) / 2
    assert rows["overall"]["value"] == pytest.approx(expected, abs=0.01)
