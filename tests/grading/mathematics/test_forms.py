"""Equal answers: pairs worked out by hand, by kind of answer."""

import pytest

from e2h_pipeline.grading.mathematics.forms import Form
from e2h_pipeline.grading.mathematics.grader import read


def form_of(text: str) -> Form:
    found = read(text)
    assert found is not None, text
    return found


EQUAL = {
    "numbers": [
        ("2/4", "\\frac12"), ("0.25", "\\frac{1}{4}"), ("1½", "3/2"), ("2\\frac58", "2.625"), ("7 3/4", "31/4"),
        ("12,345", "12345"), ("12\\,345", "12345"), ("11,\\! 111", "11111"), ("\\$23{,}000", "23000"),
        ("3.54e-07", "3.54 \\times 10^{-7}"), ("10^6", "1 \\text{ million}"), ("0.1\\overline{6}", "1/6"),
        ("5!", "120"), ("7!!", "105"), ("\\binom{5}{2}", "10"), ("2^{10}", "1024"), ("+7", "7"), (".5", "0.50"),
        ("７", "7"),
    ],
    "radicals": [
        ("\\sqrt8", "2\\sqrt2"), ("\\frac{1}{\\sqrt2}", "\\frac{\\sqrt{2}}{2}"), ("5√109", "5\\sqrt{109}"),
        ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"), ("\\sqrt[3]{-8}", "-2"), ("\\sqrt2\\sqrt3-\\sqrt6", "0"),
        ("\\frac{1+\\sqrt5}{2}", "\\frac{2}{\\sqrt5-1}"),
    ],
    "expressions": [
        ("a+b+c", "c+b+a"), ("x^2-1", "(x-1)(x+1)"), ("\\frac{x}{2}", "0.5x"), ("a^{-1}", "1/a"),
        ("\\tan^2 y+1", "\\sec^2(y)"), ("\\cos x", "\\sin(90^\\circ-x)"), ("\\log_2 8", "3"),
        ("e^{i\\pi}", "-1"),
        ("\\sqrt[3]{x}^2", "x^{2/3}"), ("\\frac{n!}{(n-1)!}", "n"), ("\\ln x^2 - \\ln x^2 + 3", "3"),
        ("x^17", "x^{17}"), ("\\cotx", "\\cot x"), ("17 \\bmod 5", "2"), ("|-3|", "3"), ("i^2", "-1"),
    ],
    "lists": [
        ("1,-2", "-2,1"), ("3 \\text{ or } 4", "4, 3"), ("3/24 or 1/8", "1/8"), ("\\pm 2", "2, -2"),
        ("1\\pm\\sqrt{19}", "1-\\sqrt{19}, 1+\\sqrt{19}"),
        ("\\{1,2\\}", "\\{2,1,1\\}"), ("7, -2, \\text{ and } -5", "-5,-2,7"), ("(5,8),(8,5)", "(8,5), (5,8)"),
        ("1, 3, 2", "1, 2, 3"), ("(12,34)", "12,34"), ("\\boxed{1} and \\boxed{2}", "1,2"),
        ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
    ],
    "intervals": [
        ("(-\\infty,0]\\cup[1,2)", "[1,2)\\cup(-\\infty,0]"), ("0\\le x\\le 1", "[0,1]"),
        ("x > 5", "(5,\\infty)"),
        ("x<2\\text{ or }x>5", "(-\\infty,2)\\cup(5,\\infty)"), ("\\mathbb{R}", "(-\\infty,\\infty)"),
        ("(0,36)\\setminus\\{9\\}", "(0,9)\\cup(9,36)"), ("x>2\\text{ and }x<5", "(2,5)"),
        ("x \\neq 2", "(-\\infty,2)\\cup(2,\\infty)"), ("x \\in [-2,7]", "-2 \\le x \\le 7"),
        ("1\\leq|z|\\leq \\frac32", "[-\\frac32,-1]\\cup[1,\\frac32]"), ("[0.5, 1)", "[1/2, 1)"),
    ],
    "relations": [
        ("x=5", "5"), ("2x+4y-3=0", "y=-\\frac12x+\\frac34"), ("xy=1", "y=1/x"), ("x\\le1", "-x\\ge-1"),
        ("f(x)=2x", "2x"), ("y=2x", "f(x)=2x"), ("|AB|=1", "1"), ("\\frac{NO}{BO}=\\frac12", "0.5"),
        ("(p,q)=(3,2)", "(3,2)"),
        ("x=2+3=5", "5"), ("\\sqrt4=2", "2"), ("x=1/3\\approx0.33", "1/3"), ("x \\neq 3", "3 \\ne x"),
        ("a+b+c=\\frac65", "1.2"), ("x^2/4+y^2/3=1", "x^2/16+y^2/12=1/4"),
    ],
    "quantities": [
        ("10\\text{ cm}^2", "10"), ("10 square units", "10"), ("8 feet", "96 inches"),
        ("\\frac34\\text{ hour}", "45\\text{ minutes}"),
        ("\\$10", "10"), ("50\\text{ cents}", "\\$0.50"), ("5\\%", "0.05"), ("5\\%", "5"),
        ("28 percent", "28\\%"),
        ("90^\\circ", "90"), ("90^\\circ", "\\frac{\\pi}{2}"), ("72 degrees", "72^\\circ"), ("10weeks", "10"),
        ("5 apples", "5"), ("12^{\\text{th}}", "12"), ("60\\text{ miles per hour}", "60"),
    ],
    "others": [
        ("\\text{Evelyn}", "evelyn"), ("(C)", "\\text{C}"), ("(D) Alina", "D"), ("\\text{odd}", "odd"),
        ("7:32", "14:64"), ("1:2", "1/2"),
        ("204_5", "204_{five}"),
        ("\\begin{pmatrix}1&0.5\\end{pmatrix}", "\\begin{bmatrix}1&\\frac12\\end{bmatrix}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"), ("\\begin{vmatrix}2&1\\\\1&2\\end{vmatrix}", "3"),
        ("4:30", "4:30 \\text{ p.m.}"), ("\\text{No solution}", "no solutions"),
        ("\\text{no solution}", "\\emptyset"), ("June 20", "\\text{June 20}"), ("\\infty", "infinity"),
        ("\\begin{cases}x=1\\\\y=2\\end{cases}", "x=1, y=2"),
    ],
    "sentences": [
        ("The answer is $x \\geq 5$.", "[5,\\infty)"), ("not 10, it's 1,000.99m²", "1000.99"),
        ("一共有3 + 10 = 13只鸟。", "13"),
        ("Answer \\( (9+1) \\)", "10"), ("Therefore the sum is $\\frac12$ or $\\frac13$.", "1/3, 1/2"),
        ("<answer>42</answer>", "42"), ("**7**", "7"), ("$\\boxed{3}$", "3"),
    ],
}  # fmt: skip

DIFFERENT = [
    ("1/3", "0.3333333333"), ("2.23", "2.232"), ("x=5", "y=5"), ("8 feet", "8 inches"), ("3 days", "3 hours"),
    ("12 \\text{ and } 13", "12"), ("5\\text{ or }-5", "5"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(0,1)", "(0,1]"),
    ("|x|", "x"), ("x+2n+1", "x+1"), ("a+3z=0", "0"), ("2x+z=1", "1"), ("x>5", "x<5"), ("x\\ge5", "x>5"),
    ("x^2+2x+1", "y^2+2y+1"), ("32, 349", "32349"), ("3,1,2", "2,1,3"), ("(1,2)", "(1,2,3)"),
    ("10", "10m"), ("d", "\\text{E}"), ("40_9", "40"), ("40_9", "36"), ("5\\%", "5\\text{ cm}"), ("\\infty", "-\\infty"),
    ("1, 2", "1, 2, 2"), ("\\frac{1}{2}", ""), ("\\text{north}", "south"), ("0,4", "0.4"), ("f(x)", "f(y)"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}2&1\\end{pmatrix}"), ("7:32", "32:7"), ("1+10^{-50}", "1"),
]  # fmt: skip


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_answers(kind: str) -> None:
    wrong = [
        (a, b)
        for a, b in EQUAL[kind]
        if not (form_of(a).equals(form_of(b)) and form_of(b).equals(form_of(a)))
    ]
    assert wrong == []


def test_different_answers() -> None:
    forms = [(read(a), read(b), (a, b)) for a, b in DIFFERENT]
    assert [
        pair for a, b, pair in forms if a is not None and b is not None and (a.equals(b) or b.equals(a))
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "\\frac{",
        "1 2 3",
        "\\foo{x}",
        "Answer $ \n 9 \n $",
        "\\boxed{3",
        "x = = 3",
        "(1,2",
        "import os",
    ],
)
def test_no_form_is_guessed(text: str) -> None:
    found = read(text)
    assert found is None or found.keys[0][0] == "words"


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "((10!)!)!", "10^{100000000}", "2^{-10^{50}}", "(" * 900 + "1" + ")" * 900]
)
def test_what_is_too_big_is_uncertain(text: str) -> None:
    assert not form_of(text).certain
    assert form_of(text).equals(form_of(text))
