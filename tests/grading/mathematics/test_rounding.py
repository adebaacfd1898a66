"""Rounded decimals: equal against a gold answer alone, by a tier of their own, in one direction."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from graded_texts import grades_of
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.graders import Grader, Verdict, grader

EQUAL, DIFFERENT = Verdict.EQUAL, Verdict.DIFFERENT


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader("math", workers=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("\\frac{2}{3}", "0.666667"),
        ("-\\sqrt{5}", "-2.236068"),
        ("\\frac{1}{432}", "2.314815 \\times 10^{-3}"),
        ("\\pi", "3.14159265358979"),
        ("(\\frac13, \\sqrt2)", "(0.333333, 1.414214)"),
        ("[\\frac13, 2)", "[0.3333333, 2)"),
        ("\\frac{1}{3}, \\frac{2}{3}", "0.666667, 0.333333"),
        ("x = \\sqrt{2}", "x \\approx 1.414214"),
        ("\\frac{50}{3}\\text{ cm}", "16.66667 cm"),
        ("1000\\sqrt{2}", "1,414.21"),
        ("0.066666793", "0.0666668"),
        ("\\begin{pmatrix}\\frac13\\\\2\\end{pmatrix}", "\\begin{pmatrix}0.333333\\\\2\\end{pmatrix}"),
    ],
)
def test_rounded_answers(judge: Grader, gold: str, answer: str) -> None:
    there, back = grades_of(judge, [(gold, answer), (answer, gold)])
    assert (there.verdict, there.tier) == (EQUAL, "rounded")
    assert back.verdict is DIFFERENT or gold == "0.066666793"
    assert judge.classes([[gold, answer]]) == [[0, 1]]
    with grader("math-exact", workers=1) as exact:
        assert grades_of(exact, [(gold, answer)])[0].verdict is DIFFERENT


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("\\frac{2}{3}", "0.66667"),
        ("\\frac{2}{3}", "0.666666"),
        ("\\frac{2}{3}", "-0.666667"),
        ("\\sqrt{2}", "0.00014"),
        ("1000000\\sqrt{2}", "1414214"),
        ("x = \\frac13", "y = 0.333333"),
        ("(\\frac13, \\sqrt2)", "(1.414214, 0.333333)"),
        ("[\\frac13, 2)", "(0.3333333, 2)"),
        ("\\frac{50}{3}\\text{ cm}", "16.66667 hours"),
        ("1", "0.999999"),
    ],
)
def test_other_decimals(judge: Grader, gold: str, answer: str) -> None:
    assert grades_of(judge, [(gold, answer)])[0].verdict is DIFFERENT


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 10**6), st.integers(3, 10**4), st.integers(0, 9))
def test_only_the_nearest_decimal_is_the_rounded_one(judge: Grader, p: int, q: int, places: int) -> None:
    value = Fraction(p, q)
    nearest = round(value * 10**places)
    for digits, verdict in ((nearest, EQUAL), (nearest + 1, DIFFERENT), (nearest - 1, DIFFERENT)):
        if digits < 10**5 or not places:
            continue  # too few digits, or no decimal
        text = f"{digits // 10**places}.{digits % 10**places:0{places}d}"
        tie = abs(value * 10**places - digits) == Fraction(1, 2)
        assert tie or grades_of(judge, [(f"\\frac{{{p}}}{{{q}}}", text)])[0].verdict is verdict
