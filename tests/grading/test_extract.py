import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.grading.extract import final_answer, last_boxed, unwrap_box
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.solutions import format_completion


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
    start = time.perf_counter()
    final_answer(text)
    assert time.perf_counter() - start < 3


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    answer = final_answer(text)
    assert answer is None or answer == answer.strip()


@given(st.text(alphabet="0123456789+-{}\\abc "))
def test_our_format_goes_round(answer: str) -> None:
    expected = unwrap_box(answer) if answer.strip() else None
    assert final_answer(format_completion(["a step"], answer)) == expected


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
