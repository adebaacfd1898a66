import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    NO_ERROR,
    choose_threshold,
    first_error_index,
    first_error_quality,
    harmonic_mean,
    judge_process_bench,
    process_bench_rows,
    read_process_bench,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import (
    StepJudge,
    StepSolution,
    completion_of,
    step_scores,
)
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap(200)


def solution(identity: str, wrong: int, subset: str = "a", level: int | None = None) -> StepSolution:
    error = frozenset() if wrong == NO_ERROR else frozenset({wrong})
    return StepSolution(identity, subset, identity, level, "1+2", ("1+2=3", "# Answer\n\n3"), error)


def test_first_error_worked_numbers() -> None:
    assert first_error_index([0.9, 0.4, 0.2], 0.5) == 1
    assert first_error_index([0.9, 0.5], 0.5) == NO_ERROR
    assert first_error_index([], 0.5) == NO_ERROR


def test_quality_worked_numbers() -> None:
    # Wrong solutions: 2 of 3 errors named exactly; right ones: 1 of 2 without a named error; F1 = 2
    # x 2/3 x 1/2 / (7/6) = 4/7.
    named, truth = np.array([0, 2, 1, -1, 0]), np.array([0, 2, 0, -1, -1])
    quality = first_error_quality(named, truth, np.arange(5), BOOTSTRAP)
    assert quality.accuracy_erroneous and quality.accuracy_correct and quality.f1
    assert quality.accuracy_erroneous[0] == pytest.approx(2 / 3)
    assert quality.accuracy_correct[0] == pytest.approx(1 / 2)
    assert quality.f1[0] == pytest.approx(4 / 7)
    assert quality.f1[1] < 4 / 7 < quality.f1[2]
    assert (quality.erroneous, quality.correct) == (3, 2)


def test_a_class_without_solutions_has_no_accuracy() -> None:
    quality = first_error_quality(np.array([0, 1]), np.array([0, 0]), np.arange(2), BOOTSTRAP)
    assert quality.accuracy_correct is None and quality.f1 is None
    assert quality.accuracy_erroneous is not None


def test_published_f1_is_the_harmonic_mean_of_published_accuracies() -> None:
    # ProcessBench, table 3, Math-Shepherd-PRM-7B: accuracy on erroneous, on correct, F1; average F1
    # 31.5.
    table = [(32.4, 91.7, 47.9), (18.0, 82.0, 29.5), (15.0, 71.1, 24.8), (14.2, 73.0, 23.8)]
    found = [harmonic_mean(wrong, right) for wrong, right, _ in table]
    assert found == pytest.approx([f1 for _, _, f1 in table], abs=0.05)
    assert np.mean(found) == pytest.approx(31.5, abs=0.05)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 10), min_size=1, max_size=5), st.booleans(), st.integers(0, 4)),
        min_size=2,
        max_size=12,
    )
)
def test_no_threshold_is_better_than_the_chosen_one(rows: list[tuple[list[int], bool, int]]) -> None:
    scores = [[s / 10 for s in steps] for steps, _, _ in rows]
    truth = [NO_ERROR if right else at % len(steps) for steps, right, at in rows]
    if all(t == NO_ERROR for t in truth) or NO_ERROR not in truth:
        with pytest.raises(ValueError, match="needs right and wrong ones"):
            choose_threshold(scores, truth)
        return
    chosen = choose_threshold(scores, truth)

    def f1(threshold: float) -> float:
        hits = [first_error_index(s, threshold) == t for s, t in zip(scores, truth, strict=True)]
        wrong = np.mean([h for h, t in zip(hits, truth, strict=True) if t != NO_ERROR])
        return harmonic_mean(
            float(wrong), float(np.mean([h for h, t in zip(hits, truth, strict=True) if t == NO_ERROR]))
        )

    assert f1(chosen.value) == pytest.approx(chosen.validation_f1)
    assert chosen.validation_f1 >= max(f1(t / 100) for t in range(1, 100)) - 1e-12


def test_rows_by_subset_level_and_average() -> None:
    solutions = [
        *(solution(f"a{i}", [0, NO_ERROR][i % 2], "a", 1) for i in range(10)),
        *(solution(f"b{i}", [1, NO_ERROR][i % 2], "b") for i in range(20)),
    ]
    scores = [[0.1, 0.9] if s.wrong else [0.9, 0.9] for s in solutions]
    rows = {(r["metric"], r["group"]): r for r in process_bench_rows(solutions, scores, 0.5, BOOTSTRAP)}
    assert rows["f1", "a"]["value"] == rows["f1", "level 1"]["value"] == 1
    assert rows["accuracy_erroneous", "b"]["value"] == 0 and rows["accuracy_correct", "b"]["value"] == 1
    assert rows["f1", "average"]["value"] == 0.5 and rows["f1", "average"]["count"] == 30
    assert rows["f1", "b"]["count"] == 20


def test_steps_become_segments_and_are_counted_back() -> None:
    text, segments = completion_of(["1+2=3\n\nthat is 3", "  ", "so\n\n# Answer\n\n3"])
    assert text == "1+2=3\nthat is 3\n\nso\n\n# Answer\n\n3"
    assert segments == [[0], [], [1, 2, 2]]
    assert len(MARKED.parse(text).spans) == 3
    # An answer block that is empty or not the last step counts as an ordinary step.
    for steps in (["# Answer\n\n3", "check"], ["1+2=3", "# Answer"]):
        assert completion_of(steps)[1] == [[0], [1]]
    # A marker alone is joined with the next step.
    assert completion_of(["1+2=3", "# Answer", "3", "check"])[1] == [[0], [1], [1], [1]]
    with pytest.raises(ValueError, match="needs a step with text"):
        completion_of(["", " "])


def test_every_step_has_a_score(ladder_evaluator: Path) -> None:
    steps = ("", "1+2=3", "", "3*2=6\n\n# Answer\n\n6")
    found = step_scores(
        StepJudge.load(ladder_evaluator),
        [StepSolution("x", "a", "x", None, "1+2*2", steps, frozenset())],
    )[0]
    assert len(found) == 4 and all(0 < s < 1 for s in found)
    assert found[0] == found[1] == found[2]


RECORD = {"id": "m-0", "problem": "1+2", "steps": ["1+2=3", "3+1=4"], "label": 1, "subset": "math"}


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("change", [{"label": 2}, {"label": "1"}, {"steps": "1"}, {"subset": None}])
def test_records_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_jsonl(tmp_path / "bench.jsonl", [RECORD, {**RECORD, **change}])
    with pytest.raises(ProblemError, match=rf"bench.jsonl:2: '{next(iter(change))}'"):
        read_process_bench(path)


def test_a_file_is_judged_with_a_threshold_from_easy_validation(
    ladder_evaluator: Path, tmp_path: Path
) -> None:
    import pyarrow as pa

    labels = [
        {"question": "1+2*2", "completion": text, "labels": marks, "finished": True, "split": split}
        for text, marks in (("1+2=3\n\n3*2=6", [1, 1]), ("1+2=4\n\n4*2=1", [0, -1]))
        for split in ("train", "validation")
    ]
    write_table(tmp_path / "labels" / "data.parquet", pa.Table.from_pylist(labels))
    file = write_jsonl(
        tmp_path / "bench.jsonl",
        [RECORD, {**RECORD, "id": "m-1", "label": -1, "math_level": 4, "problem": "2+2"}],
    )
    work = Work(tmp_path / "out", tmp_path / "work")
    summary = judge_process_bench(
        StepJudge.load(ladder_evaluator), file, tmp_path / "labels", BOOTSTRAP, work
    )
    assert 0 < summary["threshold"] < 1 and summary["validation_solutions"] == 2
    assert summary["solutions"] == {"math": 2} and set(summary["f1"]) == {"math", "average"}
    predictions = read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [p["first_error"] for p in predictions] == [1, -1]
    assert [p["level"] for p in predictions] == [None, 4]
    for p in predictions:
        assert p["named"] == first_error_index(p["step_scores"], summary["threshold"])


def test_process_bench_is_read_whole(data_dir: Path) -> None:
    """Sizes of the four subsets as published (table 1). The file has no scores of evaluators, so
    their F1 cannot be computed without their weights; `test_reason_eval.py` uses stored scores."""
    solutions = read_process_bench(data_dir / "steps" / "processbench.jsonl.gz")
    sizes = {
        name: (
            sum(bool(s.wrong) for s in solutions if s.group == name),
            sum(not s.wrong for s in solutions if s.group == name),
        )
        for name in ("gsm8k", "math", "olympiadbench", "omnimath")
    }
    assert sizes == {
        "gsm8k": (207, 193),
        "math": (594, 406),
        "olympiadbench": (661, 339),
        "omnimath": (759, 241),
    }
    for s in solutions:
        text, segments = completion_of(s.steps)
        assert segments == [[i] for i in range(len(s.steps))]
        assert len(MARKED.parse(text).spans) == len(segments)
    # A perfect judge has F1 1. A judge without errors is right on all correct solutions and has F1
    # 0.
    perfect = [[0.0 if i in s.wrong else 1.0 for i in range(len(s.steps))] for s in solutions]
    for scores, expected in ((perfect, 1.0), ([[1.0] * len(s.steps) for s in solutions], 0.0)):
        rows = process_bench_rows(solutions, scores, 0.5, Bootstrap(100))
        found = {(r["metric"], r["group"]): r["value"] for r in rows}
        assert found["f1", "average"] == expected and found["accuracy_correct", "math"] == 1
        assert {g for _, g in found} >= {"level 1", "level 5"}
    with gzip.open(data_dir / "steps" / "processbench.jsonl.gz", "rt") as file:
        assert "scores" not in json.loads(next(file))
