"""Any evaluator judged on labelled steps: files, threshold rules, the control, and published numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.evaluation.easy_steps import EasySteps
from e2h_pipeline.evaluation.human_steps import BASELINE, EVALUATOR
from e2h_pipeline.evaluation.outside.judge import AVERAGE, TOGETHER, JudgeOptions, JudgeResult, Rule, judge
from e2h_pipeline.evaluation.outside.judged_lines import FORMS, Judged, form_of, read_judged, with_scores
from e2h_pipeline.evaluation.outside.length_control import length_scores
from e2h_pipeline.evaluation.step_benchmarks.prm_bench import CLASSES
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.statistics.bootstrap import Bootstrap

Record = dict[str, Any]
BOOTSTRAP = Bootstrap(200)
OWN: Record = {"question": "1+2", "steps": ["1+2=3", "3+1=5", "so 5"], "step_scores": [0.9, 0.2, 0.8]}
BENCH: Record = {"id": "m-0", "problem": "1+2", "steps": ["1+2=3", "3+1=4"], "label": 1, "subset": "math"}
PRM: Record = {
    "idx": "x-0",
    "classification": "circular",
    "modified_question": "1+2",
    "modified_process": ["1+2=3", "3+1=4"],
    "error_steps": [2, 3],
    "step_scores": [0.9, 0.1],
}
MR: Record = {
    "question": "1+2",
    "model_output_step_format": [["a", "b"], ["c"]],
    "model_output_solution_first_error_step": 2,
    "prm_scores": {"ours": [0.9, 0.6, 0.2], "theirs": [[0.1, 0.2, 0.7], [0.3, 0.5, 0.2], [0.8, 0.1, 0.1]]},
}


def numbered(*records: Record) -> Iterator[tuple[int, Record]]:
    return iter(list(enumerate(records, start=1)))


def read(*records: Record, published: str = "", logits: bool = False) -> Judged:
    return read_judged(numbered(*records), "a.jsonl", MATH, published, logits)


def judged(found: Judged, rule: Rule, easy: EasySteps | None = None) -> JudgeResult:
    return judge(found, JudgeOptions(rule, (1, 2, 3), BOOTSTRAP), easy)


def values(result: JudgeResult, name: str = EVALUATOR) -> dict[tuple[str, str, str], float]:
    return {
        (row["group"], row["levels"], row["metric"]): row["value"]
        for row in result.rows
        if row["judge"] == name
    }


@pytest.mark.parametrize(
    ("record", "form", "labels"),
    [
        ({**OWN, "labels": [1, 0, None]}, "labels", (1, 0, -1)),
        ({**OWN, "labels": [True, False, True]}, "labels", (1, 0, 1)),
        ({**OWN, "label": -1}, "label", (1, 1, 1)),
        ({**OWN, "label": 1}, "label", (1, 0, -1)),
        ({**OWN, "ratings": [0, 1, -1]}, "ratings", (1, 1, 0)),
        ({**OWN, "ratings": [-1, 1, None]}, "ratings", (0, -1, -1)),
        ({**BENCH, "step_scores": [0.5, 0.5]}, "process_bench", (1, 0)),
        (PRM, "prm_bench", (1, 0)),
        ({**MR, "step_scores": [0.5, 0.5]}, "mr_math_invalid", (1, 0)),
    ],
)
def test_labels_of_each_kind_of_file(record: Record, form: str, labels: tuple[float, ...]) -> None:
    found = read(record)
    assert found.form == form and found.solutions[0].labels == labels
    assert len(found.scores[0]) == len(found.lengths[0]) == len(labels)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({**OWN}, "no labels of steps"),
        ({**OWN, "labels": [1, 0]}, "2 entries in 'labels' for 3 steps"),
        ({**OWN, "labels": [1, 0, -1]}, "'labels' of step 2 is -1; allowed: 1, 0, null"),
        ({**OWN, "labels": [1, [0], 1]}, "'labels' of step 1"),
        ({**OWN, "label": 3}, "'label' is 3, but there are 3 steps"),
        ({**OWN, "label": "1"}, "'label' is '1'"),
        ({**OWN, "label": True}, "'label' is True"),
        ({**OWN, "label": 1, "step_scores": [0.5]}, "1 numbers in 'step_scores' for 3 steps"),
        ({**OWN, "label": 1, "step_scores": [0.5, 2, 0.5]}, "say --logits"),
        ({**OWN, "label": 1, "step_scores": None}, "no 'step_scores'"),
        ({**OWN, "label": 1, "level": "high"}, "'level' must be a whole number"),
        ({**PRM, "classification": "typo"}, "'classification' is 'typo'"),
        ({**PRM, "error_steps": 2}, "'error_steps' must be a list"),
        (
            {**MR, "model_output_solution_first_error_step": 3},
            "first_error_step' is 2, but there are 2 steps",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_named(record: Record, says: str) -> None:
    with pytest.raises(ProblemError, match=r"^a.jsonl:1: ") as caught:
        read(record)
    assert says in str(caught.value)


def test_scores_that_a_file_stores_of_others() -> None:
    """A step of several lines has the lowest score; of three chances the first is that of an error."""
    assert read(MR, published="ours").scores == [[0.6, 0.2]]
    assert read(MR, published="theirs").scores == [pytest.approx([0.7, 0.2])]
    redundant = {name: value for name, value in MR.items() if "error" not in name} | {"rating": [1, 0]}
    assert read(redundant, published="theirs").scores == [pytest.approx([0.5, 0.9])]
    with pytest.raises(ProblemError, match=r"no scores of 'mine'; there are ours, theirs"):
        read(MR, published="mine")
    with pytest.raises(ProblemError, match=r"4 scores of 'ours' for 3 lines"):
        read({**MR, "prm_scores": {"ours": [0.1] * 4}}, published="ours")


def test_scores_of_another_file_are_found_by_id() -> None:
    scores = [{"id": "b", "step_scores": [2.0, 0.0]}, {"id": "a", "step_scores": [0.0, -2.0]}]
    lines = [{**BENCH, "id": "a"}, {**BENCH, "id": "b"}]
    joined = with_scores(numbered(*lines), "a.jsonl", numbered(*scores), "s.jsonl")
    found = read_judged(joined, "a.jsonl", MATH, logits=True)
    assert found.scores == [pytest.approx([0.5, 0.1192], abs=1e-4), pytest.approx([0.8808, 0.5], abs=1e-4)]
    for given, made_by, says in (
        (scores[:1], "", r"a.jsonl:1: no line 'a' in s.jsonl"),
        ([*scores, scores[0]], "", r"s.jsonl:3: 'b' was on a line before"),
        (scores, "me", r"s.jsonl:1: not scores of this evaluator"),
    ):
        with pytest.raises(ProblemError, match=says):
            list(with_scores(numbered(*lines), "a.jsonl", numbered(*given), "s.jsonl", made_by))


def first_errors(hits: Sequence[tuple[int, int]], subset: str, level: int | None = None) -> list[Record]:
    """Solutions of three steps with the first error, -1 for none, and the one that is named."""
    return [
        {
            "id": f"{subset}{i}",
            "problem": f"{subset} {i} plus {i * i}",
            "steps": ["one", "two", "three"],
            "label": truth,
            "subset": subset,
            "math_level": level,
            "step_scores": [0.1 if step == named else 0.9 for step in range(3)],
        }
        for i, (truth, named) in enumerate(hits)
    ]


def test_worked_numbers_by_group_level_and_on_average() -> None:
    # math: 2 of 3 errors named, 1 of 2 left alone: F1 = 4/7. gsm8k: 1 of 2 and 1 of 1: F1 = 2/3.
    easy = first_errors([(0, 0), (2, 2), (1, 0), (-1, -1), (-1, 0)], "math", 2)
    other = first_errors([(0, 0), (1, 0), (-1, -1)], "gsm8k")
    found = values(judged(read(*easy, *other), Rule("fixed", 0.5)))
    assert found["math", "2", "first_error_f1"] == pytest.approx(4 / 7)
    assert found["math", "easy", "first_error_accuracy_erroneous"] == pytest.approx(2 / 3)
    assert found["math", "all", "first_error_accuracy_correct"] == pytest.approx(1 / 2)
    assert found["gsm8k", "all", "first_error_f1"] == pytest.approx(2 / 3)
    assert found[AVERAGE, "all", "first_error_f1"] == pytest.approx((4 / 7 + 2 / 3) / 2)
    # Together: 3 of 5 errors, 2 of 3 left alone.
    assert found[TOGETHER, "all", "first_error_f1"] == pytest.approx(2 * 0.6 * (2 / 3) / (0.6 + 2 / 3))
    assert not any(group == "gsm8k" and levels != "all" for group, levels, _ in found)


def test_prm_bench_has_its_own_measure() -> None:
    # Steps of PRM: right .9, wrong .1; of the other solution: right .2 (refused) and .8.
    other = {**PRM, "idx": "x-1", "classification": "deception", "error_steps": [], "step_scores": [0.2, 0.8]}
    result = judged(read(PRM, PRM, other), Rule("fixed", 0.5))
    found = values(result)
    assert result.summary["counts"] == {"lines": 3, "repeated": 1, "errors beyond the last step": 1}
    assert found["circular", "all", "prm_score"] == 1
    assert found["overall", "all", "prm_score"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # TP 2, TN 1, FN 1
    assert not any(metric.startswith("first_error") for _, _, metric in found)
    best = judged(read(PRM, other), Rule("oracle")).summary["threshold"]["value"]
    assert 0.1 < best < 0.2  # all steps on their side


def test_the_rule_is_part_of_the_result() -> None:
    # Wrong steps score .55: the fixed threshold names none, the oracle's all.
    lines = [{**line, "step_scores": [0.55 if s < 0.5 else s for s in line["step_scores"]]} for line in HALF]
    fixed, oracle = (judged(read(*lines), rule) for rule in (Rule("fixed", 0.5), Rule("oracle")))
    assert values(fixed)["math", "all", "first_error_f1"] == 0
    assert values(oracle)["math", "all", "first_error_f1"] == 1
    assert fixed.summary["threshold"]["for_claims"] and not oracle.summary["threshold"]["for_claims"]
    assert "not allowed for claims" in oracle.summary["threshold"]["told"]
    with pytest.raises(ProblemError, match="--threshold easy"):
        judged(read(*lines), Rule("easy"))
    right = [line for line in lines if line["label"] == -1]
    with pytest.raises(ProblemError, match="all right or all wrong"):
        judged(read(*right), Rule("oracle"))


HALF = first_errors([(i % 3, i % 3) if i % 2 else (-1, -1) for i in range(12)], "math", 4)


def easy_steps(*questions: str) -> EasySteps:
    """Easy solutions, right ones with scores above .3 and wrong ones below."""
    rows = [
        {"question": question, "labels": labels, "completion": "a\n\nb\n\n"}
        for question in questions
        for labels in ([1.0, 1.0], [1.0, 0.0])
    ]
    return EasySteps(rows, rows, [[0.9, 0.35], [0.9, 0.25]] * len(questions), None)


def test_the_easy_threshold_is_that_of_easy_solutions_and_what_trained_is_left_out() -> None:
    trained = HALF[0]["problem"]
    result = judged(read(*HALF), Rule("easy"), easy_steps(f"  {trained} "))
    assert 0.25 < result.summary["threshold"]["value"] < 0.35
    assert result.summary["threshold"]["easy_f1"] == 1
    assert result.summary["solutions"] == len(HALF) - 1
    assert (
        result.summary["counts"]["left out: their problem trained the evaluator or chose its threshold"] == 1
    )
    with pytest.raises(ProblemError, match="no solution of the file"):
        judged(read(HALF[0]), Rule("fixed"), easy_steps(trained))
    # PRMBench changes some questions; what trained is the one before.
    other = {**PRM, "idx": "x-1", "original_question": "9+9"}
    assert judged(read(PRM, other), Rule("fixed"), easy_steps("9+9")).summary["solutions"] == 1


def test_the_control_sees_length_and_position_and_never_its_own_problem() -> None:
    rng = random.Random(0)
    lines = []
    for i in range(60):  # wrong steps are long; scores are noise
        wrong = [rng.random() < 0.4 for _ in range(4)]
        lines.append(
            {
                "question": f"{i} times {i}?",
                "steps": ["long" * 9 if bad else "s" for bad in wrong],
                "labels": [int(not bad) for bad in wrong],
                "step_scores": [rng.random() for _ in wrong],
            }
        )
    found = judged(read(*lines), Rule("fixed"))
    assert values(found, BASELINE)["steps", "all", "step_auroc"] == 1
    assert values(found, BASELINE)["steps", "all", "step_auroc_over"] < -0.3
    read_lines = read(*lines)
    assert length_scores(read_lines.solutions[:4], read_lines.lengths[:4], 0) is None  # fewer than folds
    # One problem has all wrong steps, and all steps look alike. Who has not seen it thinks best of it.
    alike = [{**line, "steps": ["s"] * 4, "labels": [int(i > 0)] * 4} for i, line in enumerate(lines[:5])]
    scores = length_scores(read(*alike).solutions, read(*alike).lengths, 0)
    assert scores is not None
    assert min(scores[0]) > max(score for own in scores[1:] for score in own)


STEP_AUROC = {  # of the released step scores, as printed by the authors' script (ReasonEval)
    "mr-math_invalid_errors": {"math-shepherd_mistral-7b": 0.772, "reasoneval_llemma-34b": 0.928},
    "mr-math_redundant_errors": {"math-shepherd_mistral-7b": 0.530, "reasoneval_llemma-34b": 0.673},
}


@pytest.mark.parametrize("file", STEP_AUROC)
def test_published_auroc_of_stored_scores(data_dir: Path, file: str) -> None:
    for model, expected in STEP_AUROC[file].items():
        found = read_judged(read_jsonl(data_dir / "steps" / f"{file}.jsonl.gz"), file, MATH, model)
        ((group, auroc),) = (
            (group, value)
            for (group, levels, metric), value in values(judged(found, Rule("fixed"))).items()
            if (levels, metric) == ("all", "step_auroc")
        )
        assert file.startswith(group.replace("mr_math", "mr-math")) and auroc == pytest.approx(
            expected, abs=5e-4
        )


def perfect(path: Path, steps: str) -> Iterator[tuple[int, Record]]:
    """Lines with the scores of a judge that knows their labels."""
    for number, record in read_jsonl(path):
        labels = FORMS[form_of(record, "")].labels(record, len(record[steps]), "")
        yield number, {**record, "step_scores": [float(label != 0) for label in labels]}


def test_process_bench_is_judged_whole(data_dir: Path) -> None:
    path = data_dir / "steps" / "processbench.jsonl.gz"
    found = read_judged(perfect(path, "steps"), "processbench", MATH)
    assert len(found.solutions) == 3400
    others = {
        own for s, q in zip(found.solutions, found.questions, strict=True) if s.source != "math" for own in q
    }
    result = values(judged(found.without(others, "other subsets"), Rule("fixed")))
    assert result["math", "all", "first_error_f1"] == result["math", "5", "step_auroc"] == 1
    assert result["math", "all", "first_error_accuracy_correct"] == 1


def test_prm_bench_is_judged_whole(data_dir: Path) -> None:
    path = data_dir / "steps" / "prmbench.jsonl.gz"
    found = read_judged(perfect(path, "modified_process"), "prmbench", MATH)
    assert found.counts == {"lines": 6216, "repeated": 5, "errors beyond the last step": 151}
    assert {solution.source for solution in found.solutions} == set(CLASSES)
    for solution in found.solutions:
        used = {i for own in solution.segments for i in own}
        assert used == set(range(len(MATH.text.parse(solution.completion).spans)))
