import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    NO_ERROR,
    choose_threshold,
    first_error_index,
    first_error_quality,
    harmonic_mean,
    read_process_bench,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import completion_of, per_step
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap(200)


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


def test_a_step_has_the_lowest_score_of_its_segments_and_an_empty_one_that_before() -> None:
    assert per_step([0.9, 0.4, 0.7], [[0, 1], [], [2]]) == [0.4, 0.4, 0.7]
    assert per_step([0.9, 0.4], [[], [0], [], [1]]) == [0.9, 0.9, 0.9, 0.4]


RECORD = {"id": "m-0", "problem": "1+2", "steps": ["1+2=3", "3+1=4"], "label": 1, "subset": "math"}


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("change", [{"label": 2}, {"label": "1"}, {"steps": "1"}, {"subset": None}])
def test_records_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_jsonl(tmp_path / "bench.jsonl", [RECORD, {**RECORD, **change}])
    with pytest.raises(ProblemError, match=rf"bench.jsonl:2: '{next(iter(change))}'"):
        read_process_bench(path)


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
    with gzip.open(data_dir / "steps" / "processbench.jsonl.gz", "rt") as file:
        assert "scores" not in json.loads(next(file))
