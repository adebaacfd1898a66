import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.grading.mathematics.extract import extract, final_answer, last_boxed, unwrap_box
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.solutions import MARKED


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("1 + 1 = 2\n\n# Answer\n\n2", "2"),
        ("so \\boxed{3}\n\n# Answer\n\n2", "2"),  # our block goes before a box
        ("so \\boxed{3}\n\n# Answer\n\n", "3"),  # an empty block is none
        ("x\n\n# Answer\n\n$\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}"),
        ("first \\boxed{1}, then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("$\\boxed{\\{1, 2\\}}$", "\\{1, 2\\}"),
        ("$\\boxed{\\left\\{ x \\right.}$", "\\left\\{ x \\right."),
        ("\\fbox{7}", "7"),
        ("so $\\boxed 5$", "5"),
        ("\\boxed{\\boxed{4}}", "4"),
        ("\\boxed{1} and \\boxed{2", "1"),  # the unclosed box is no answer
        ("the answer is 5", None),
        ("\\boxed{ }", None),
        ("", None),
    ],
)
def test_final_answer(completion: str, answer: str | None) -> None:
    assert final_answer(completion) == answer


def test_a_truncated_completion_has_no_answer() -> None:
    assert final_answer("1 + 1 = 2\n\n# Answer\n\n2", finished=False) is None


def test_only_a_whole_box_is_unwrapped() -> None:
    assert unwrap_box(" \\boxed{5} ") == "5"
    assert unwrap_box("\\boxed{5} cm") == "\\boxed{5} cm"
    assert unwrap_box("\\boxed{5} or \\boxed{6}") == "\\boxed{5} or \\boxed{6}"


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 150_000, "{" * 1_000_000, "\\boxed{a}" * 100_000, "\\" * 1_000_000]
)
def test_a_megabyte_takes_a_moment(text: str) -> None:
    start = time.process_time()
    final_answer(text)
    assert time.process_time() - start < 10  # what is quadratic takes minutes


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    answer = final_answer(text)
    assert answer is None or answer == answer.strip()


@given(st.text(alphabet="0123456789+-{}\\abc "))
def test_our_format_goes_round(answer: str) -> None:
    expected = unwrap_box(answer) if answer.strip() else None
    assert final_answer(MARKED.completion(["a step"], answer)) == expected


def test_boxes_of_math() -> None:
    folder = os.environ.get("E2H_DATA_DIR")
    if not folder:
        pytest.skip("E2H_DATA_DIR is not set: no MATH data here")
    rows = [
        r for part in ("train", "test") for _, r in read_jsonl(Path(folder) / f"math/math_{part}.jsonl.gz")
    ]
    wrong = [r["unique_id"] for r in rows if (last_boxed(r["solution"]) or "") != r["answer"]]
    assert len(rows) == 12_500
    assert wrong == [], json.dumps(wrong)


@pytest.mark.parametrize(
    ("response", "answer", "rule"),
    [
        ("so it is 5\n#### 42", "42", "hash"),
        ("###### heading\nnothing", None, ""),
        ("I think <answer>\\frac{1}{2}</answer>", "\\frac{1}{2}", "tag"),
        ("\\boxed{255} of interest. The final answer is $10,455$. I hope it is correct.", "$10,455$", "final-answer"),
        ("The final answer is 7.78. So \\boxed{7.79}", "7.79", "boxed"),
        ("\\boxed{1} papers and \\boxed{2} bins", "1, 2", "boxed"),
        ("\\boxed{1} no no no \\boxed{2}", "2", "boxed"),
        ("The answer is for sure D, it can't be A or B", "D", "answer-is"),
        ("We add them up. Therefore there are 12 of them.", "12", "conclusion"),
        ("We add them up.\nAnd then we carry the 12 over to the next", None, ""),
        ("x = 3", "x = 3", "whole"),
    ],
)  # fmt: skip
def test_rules_in_order(response: str, answer: str | None, rule: str) -> None:
    found = extract(response)
    assert (found.answer, found.rule) == (answer, rule) if answer else found is None
    if found is not None and rule != "boxed":
        assert response[found.start : found.end].strip() == found.answer
    assert extract(response, finished=False) is None
