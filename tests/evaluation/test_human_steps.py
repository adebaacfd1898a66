"""Steps that people labelled: how each source is read, and the numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.human_steps import (
    BASELINE,
    EVALUATOR,
    HUMAN_SOLUTIONS,
    HUMAN_STEPS,
    Judge,
    human_step_rows,
    judge_human_steps,
    pooled_step_rows,
)
from e2h_pipeline.evaluation.step_benchmarks.human_steps import (
    HumanSolution,
    KnownProblems,
    read_human_steps,
)
from e2h_pipeline.evaluation.step_benchmarks.process_bench import Threshold
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe import Evaluation, HumanSteps
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.statistics.bootstrap import Bootstrap

PROBLEMS = [
    {"problem_id": f"p{i}", "level": 1 + i % 5, "question": f"What is {i} times {i} plus {i}?"}
    for i in range(10)
]
KNOWN = KnownProblems({row["problem_id"]: {**row, "split": "audit"} for row in PROBLEMS}, {})


def _lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _problems(folder: Path) -> list[Path]:
    write_table(folder / "problems" / "data.parquet", pa.Table.from_pylist(PROBLEMS))
    return [folder / "problems"]


def _prm800k(number: int, ratings: list[int]) -> dict[str, Any]:
    problem = PROBLEMS[number]
    return {
        "unique_id": problem["problem_id"],
        "level": problem["level"],
        "problem": problem["question"],
        "steps": [f"{number}+{j}={(number + j + (rating < 0)) % 7}" for j, rating in enumerate(ratings)],
        "ratings": ratings,
    }


def _steps(folder: Path) -> None:
    _lines(
        folder / "prm800k_human.jsonl",
        [_prm800k(i, [1, 0, 1] if i % 2 else [1, -1]) for i in range(10)],
    )
    _lines(
        folder / "processbench.jsonl",
        [
            {
                "id": f"math-{i}",
                "problem": PROBLEMS[i]["question"].lower(),  # the same problem in other letters
                "steps": ["one", "", "three"],
                "label": 2 if i % 2 else -1,
                "subset": "math",
            }
            for i in range(4)
        ]
        + [{"id": "g", "problem": "q", "steps": ["a"], "label": -1, "subset": "gsm8k"}],
    )
    _lines(
        folder / "mr-math_invalid_errors.jsonl",
        [
            {
                "id": i,
                "question": PROBLEMS[5 + i]["question"],
                "model_output_step_format": [["one"], ["two", "and more"]],
                "model_output_solution_first_error_step": 2 if i else "N/A",
                "prm_scores": {"shepherd": [0.9, 0.4, 0.6], "reasoneval": [[0.1, 0.2, 0.7]] * 3},
            }
            for i in range(2)
        ],
    )


def test_every_source_is_read_in_one_form(tmp_path: Path) -> None:
    _steps(tmp_path)
    options = HumanSteps(sources=("prm800k", "process_bench", "mr_math"), path=str(tmp_path))
    found, counts = read_human_steps(options, KnownProblems.of(_problems(tmp_path)), MARKED)
    by_source = {name: [s for s in found if s.source == name] for name in counts}
    assert {name: len(part) for name, part in by_source.items()} == {
        "prm800k": 10,
        "process_bench": 4,
        "mr_math": 2,
    }
    assert counts["process_bench"]["of other subsets"] == 1
    wrong, right = by_source["prm800k"][:2]
    assert (wrong.problem, wrong.level, wrong.labels) == ("p0", 1, (1.0, 0.0))
    assert right.labels == (1.0, 1.0, 1.0)  # a neutral rating counts as right
    assert not right.finished
    assert right.completion.endswith(MARKED.separator)
    named = by_source["process_bench"][1]
    assert (named.problem, named.level, named.labels) == ("p1", 2, (1.0, 1.0, 0.0))
    assert named.segments == ((0,), (), (1,))  # the empty step has no text to judge
    assert by_source["process_bench"][0].labels == (1.0, 1.0, 1.0)
    last = by_source["mr_math"][1]
    assert last.labels == (1.0, 0.0)
    assert last.published == {"shepherd": [0.9, 0.4], "reasoneval": pytest.approx([0.9, 0.9])}


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    options = HumanSteps(sources=("mr_math",), path=str(tmp_path))
    with pytest.raises(ProblemError, match=r"0 files are called mr-math_invalid"):
        read_human_steps(options, KNOWN, MARKED)
    _steps(tmp_path)
    file = tmp_path / "mr-math_invalid_errors.jsonl"
    record = json.loads(file.read_text().splitlines()[0])
    _lines(file, [{**record, "model_output_solution_first_error_step": 3}])
    with pytest.raises(ProblemError, match=r"mr-math_invalid_errors.jsonl:1: first error step is 3 of 2"):
        read_human_steps(options, KNOWN, MARKED)
    _lines(file, [{**record, "prm_scores": {"shepherd": [0.5]}}])
    with pytest.raises(ProblemError, match=r":1: 1 scores for 3 lines"):
        read_human_steps(options, KNOWN, MARKED)


def _solution(number: int, level: int, labels: tuple[float, ...], **changed: Any) -> HumanSolution:
    return HumanSolution(
        source="s",
        identity=str(number),
        problem=f"p{number}",
        level=level,
        question="q",
        completion="",
        finished=False,
        segments=tuple((i,) for i in range(len(labels))),
        labels=labels,
        **changed,
    )


def test_numbers_by_hand() -> None:
    """Four hard solutions. The evaluator's right steps score .9 .8 .6 .6 .5, its wrong ones .7 .1: of
    ten pairs seven are in order, none is tied. At .55 it names the first error of one of two wrong
    solutions, and none in one of two right ones: F1 .5. The other judge scores all alike."""
    solutions = [
        _solution(0, 4, (1.0, 0.0)),
        _solution(1, 4, (1.0, 0.0)),
        _solution(2, 5, (1.0, 1.0)),
        _solution(3, 5, (1.0,)),
        _solution(4, 1, (1.0, 0.0, -1.0)),
    ]
    own = [[0.9, 0.1], [0.8, 0.7], [0.6, 0.5], [0.6], [0.9, 0.2, 0.1]]
    flat = [[0.5] * len(s.labels) for s in solutions]
    judges = {
        EVALUATOR: Judge(own, Threshold(0.55, 1.0, 9)),
        BASELINE: Judge(flat, Threshold(0.4, 1.0, 9)),
    }
    rows = list(human_step_rows(solutions, judges, (1, 2, 3), Bootstrap(200)))
    found = {(row["judge"], row["metric"], row["levels"]): row for row in rows}
    assert found[EVALUATOR, "step_auroc", "hard"]["value"] == pytest.approx(7 / 10)
    assert found[EVALUATOR, "step_auroc", "hard"]["count"] == 7
    assert found[BASELINE, "step_auroc", "hard"]["value"] == 0.5
    assert found[BASELINE, "step_auroc_over", "hard"]["value"] == pytest.approx(0.2)
    assert found[EVALUATOR, "first_error_accuracy_erroneous", "hard"]["value"] == 0.5
    assert found[EVALUATOR, "first_error_accuracy_correct", "hard"]["value"] == 0.5
    assert found[EVALUATOR, "first_error_f1", "hard"]["value"] == pytest.approx(0.5)
    assert found[BASELINE, "first_error_accuracy_correct", "hard"]["value"] == 1
    none = found[BASELINE, "first_error_accuracy_erroneous", "hard"]
    assert (none["value"], none["ci_low"]) == (0, 0)
    assert none["ci_high"] == pytest.approx(0.658, abs=1e-3)  # Wilson: 0 of 2 is not [0, 0]
    chance = found["chance", "first_error_f1", "hard"]["value"]  # 1/3 of two steps; 1/3 and 1/2
    assert chance == pytest.approx(2 * (1 / 3) * (5 / 12) / (1 / 3 + 5 / 12))
    assert found["chance", "first_error_f1_over", "hard"]["value"] == pytest.approx(0.5 - chance)
    assert found[EVALUATOR, "step_auroc", "easy"]["count"] == 2  # nothing behind the first error


def test_published_scores_are_compared_on_the_same_rows() -> None:
    solutions = [
        _solution(i, 4, (1.0, 0.0), published={"other": [0.2, 0.8] if i else [0.8, 0.2]}) for i in range(4)
    ]
    own = [[0.9, 0.1]] * 4
    rows = list(human_step_rows(solutions, {EVALUATOR: Judge(own, None)}, (1,), Bootstrap(100)))
    found = {(row["judge"], row["metric"], row["levels"]): row["value"] for row in rows}
    assert found[EVALUATOR, "step_auroc", "hard"] == 1
    assert found["other", "step_auroc", "hard"] == pytest.approx(1 / 4)  # one win and six ties of 16
    assert found["other", "step_auroc_over", "hard"] == pytest.approx(3 / 4)
    assert not any(metric.startswith("first_error") for judge, metric, _ in found if judge == "other")


def test_a_solution_whose_error_is_labelled_elsewhere_names_no_error() -> None:
    """Its labels stop before the error, so it is neither a right nor a wrong solution."""
    solutions = [_solution(0, 4, (1.0, -1.0), complete=False), _solution(1, 4, (1.0, 0.0))]
    judges = {EVALUATOR: Judge([[0.9, 0.1], [0.9, 0.1]], Threshold(0.5, 1.0, 2))}
    rows = list(human_step_rows(solutions, judges, (1,), Bootstrap(100)))
    counts = {
        row["metric"]: row["count"] for row in rows if row["levels"] == "hard" and row["judge"] == EVALUATOR
    }
    assert counts["first_error_accuracy_erroneous"] == 1
    assert "first_error_accuracy_correct" not in counts


@pytest.fixture(scope="module")
def judged(ladder_evaluator: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The labels of p0 to p4 train; p5 is validation."""
    folder = tmp_path_factory.mktemp("judged")
    _steps(folder)
    options = HumanSteps(sources=("prm800k", "process_bench", "mr_math"), path=str(folder))
    problems = _problems(folder)
    found, _ = read_human_steps(options, KnownProblems.of(problems), MARKED)
    labels = [
        {
            "problem_id": s.problem,
            "split": "validation" if s.problem in ("p4", "p5") else "train",
            "question": s.question,
            "completion": s.completion,
            "labels": list(s.labels),
            "finished": s.finished,
        }
        for s in found
        if s.source == "prm800k" and s.problem <= "p5"
    ]
    write_table(folder / "labels" / "data.parquet", pa.Table.from_pylist(labels))
    summary = judge_human_steps(
        options,
        ladder_evaluator,
        folder / "labels",
        problems,
        Evaluation(easy_levels=(1, 2, 3), bootstrap=100),
        MARKED,
        Work(folder / "out", folder / "work", 0),
    )
    return folder, summary


def test_problems_that_trained_are_left_out(judged: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = judged
    rows = read_table(folder / "out" / HUMAN_SOLUTIONS).to_pylist()
    trained = {"p0", "p1", "p2", "p3"}
    assert not trained & {row["problem_id"] for row in rows}
    assert summary["counts"]["left out: their problem trained the evaluator"] == 8
    assert {row["problem_id"] for row in rows if row["source"] == "prm800k"} == {
        f"p{i}" for i in range(4, 10)
    }
    numbers = read_table(folder / "out" / HUMAN_STEPS).to_pylist()
    assert {row["source"] for row in numbers} == {"prm800k", "mr_math"}
    assert summary["thresholds"].keys() == {EVALUATOR, BASELINE}
    assert len(list((folder / "work" / "human_steps").glob("*.parquet"))) == 1


def test_the_baseline_reads_nothing_behind_a_step(judged: tuple[Path, dict[str, Any]]) -> None:
    """A labelled solution ends at its first error, so what follows a step tells its label."""
    from e2h_pipeline.evaluation.human_steps import _features

    long, short = "a\n\nbb\n\nccc\n\n", "a\n\nbb\n\n"
    assert np.array_equal(_features(long, MARKED)[:2], _features(short, MARKED))


def test_over_seeds_the_interval_is_wider(judged: tuple[Path, dict[str, Any]]) -> None:
    row = {"source": "s", "judge": EVALUATOR, "metric": "step_auroc", "levels": "hard", "count": 3}
    by_seed = {
        str(seed): [{**row, "value": value, "ci_low": value - 0.03, "ci_high": value + 0.04}]
        for seed, value in enumerate((0.6, 0.7, 0.8))
    }
    (pooled,) = pooled_step_rows(by_seed)
    spread = 4.302653 * 0.1 / 3**0.5
    assert pooled["value"] == pytest.approx(0.7)
    assert pooled["ci_low"] == pytest.approx(0.7 - np.hypot(0.03, spread), abs=1e-5)
    assert pooled["ci_high"] == pytest.approx(0.7 + np.hypot(0.04, spread), abs=1e-5)
    assert pooled["by_seed"] == [0.6, 0.7, 0.8]
    (alone,) = pooled_step_rows({"0": by_seed["0"]})
    assert (alone["ci_low"], alone["ci_high"]) == pytest.approx((0.57, 0.64))
