"""What a problem's words say of the order of a list, and the verdicts that follow."""

import pytest

from e2h_pipeline.grading.graders import Verdict, grader
from e2h_pipeline.grading.mathematics.wording import is_order_free
from e2h_pipeline.grading.verdicts import Gold


@pytest.mark.parametrize(
    ("question", "free"),
    [
        ("Find all values of $x$ that satisfy it.", True),
        ("What are the roots of $x^3-x$?", True),
        ("Enter all the solutions, separated by commas.", True),
        ("Find all roots and list them in increasing order.", False),
        ("Find all roots, in any order.", True),
        ("Arrange the fractions from least to greatest.", False),
        ("Find $a$, $b$, $c$ respectively.", False),
        ("Compute the sum.", None),
        ("", None),
    ],
)
def test_words(question: str, free: bool | None) -> None:
    assert is_order_free(question) is free


def test_verdicts() -> None:
    asked, ordered, silent = "Find all roots.", "List them in increasing order.", "Compute."
    with grader("math", workers=1) as judge:
        grades = judge.grade_pairs(
            [
                (Gold("3, -1, 2", asked), "2, 3, -1"),
                (Gold("3, -1, 2", silent), "2, 3, -1"),
                (Gold("3, -1, 2", asked), "2, 3, 1"),
                (Gold("-1, 2, 3", ordered), "2, 3, -1"),
                (Gold("-1, 2, 3", silent), "2, 3, -1"),
                (Gold("(3, -1, 2)", asked), "(2, 3, -1)"),
            ]
        )
    assert [(grade.verdict is Verdict.EQUAL, grade.tier) for grade in grades] == [
        (True, "order"),
        (False, "form"),
        (False, "form"),
        (False, "order"),
        (True, "form"),
        (False, "form"),
    ]
