"""Agreement with hand-made labels on real data; skipped without the data. docs/grading.md lists
labels that we think wrong."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from graded_texts import grades_of

from e2h_pipeline.grading.graders import Verdict, grader
from e2h_pipeline.grading.mathematics.extract import extract

DATA = os.environ.get("E2H_DATA_DIR", "")
pytestmark = pytest.mark.skipif(not DATA, reason="E2H_DATA_DIR is not set: no real grading cases")


def test_agreement_with_labels() -> None:
    lines = (Path(DATA) / "grading_cases.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    answers = []
    for case in cases:
        found = extract(case["prediction"]) if case["kind"] == "response" else None
        text = case["prediction"] if case["kind"] == "answer" else found.answer if found else ""
        answers.append((case["gold"], text))
    with grader("math") as judge:
        grades = grades_of(judge, answers)
    agreed, total, false_accepts, negatives = Counter[str](), Counter[str](), 0, 0
    for case, grade in zip(cases, grades, strict=True):
        equal = grade.verdict is Verdict.EQUAL
        total[case["kind"]] += 1
        agreed[case["kind"]] += equal == case["equivalent"]
        negatives += not case["equivalent"]
        false_accepts += equal and not case["equivalent"] and grade.tier != "rounded"
    assert agreed["answer"] / total["answer"] >= 0.93
    assert agreed["response"] / total["response"] >= 0.98
    assert false_accepts <= negatives / 100
