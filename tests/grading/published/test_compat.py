"""Decisions of the two published graders: worked out by hand from upstream's rules, or measured
there."""

import json
import os
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from graded_texts import grades_of, verdicts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.published.compat import E2hStringGrader, Prm800kGrader, by_strings
from e2h_pipeline.grading.published.compat_forms import hendrycks_form, loose_form
from e2h_pipeline.grading.verdicts import Verdict
from e2h_pipeline.grading.worker_pool import WorkerPool

EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED

Pair = tuple[str, str]

EQUAL_IN_BOTH = [
    ("\\frac{1}{2}", "\\dfrac12"),
    ("\\frac{1}{2}", "0.5"),
    ("\\frac{1}{2}", "1/2"),
    ("\\sqrt{3}", "\\sqrt3"),
    ("7", "x = 7"),
    ("1,234", "1234"),
    ("10,\\!080", "10080"),
    ("36", "36.0000000001"),
    ("(3,4)", "\\left( 3, 4 \\right)"),
    ("\\text{Monday}", "monday"),
    ("11\\frac{1}{2}", "11 1/2"),
    ("\\frac{2}{5}", "{\\frac{2}{5}}"),
    ("(1/2,3)", "(1/2,  3 )"),
    # false positives, kept
    ("12", "12 \\text{ and } 13"),
    ("5", "5 \\text{ or } -5"),
    ("x=5", "y=5"),
    ("8 \\text{ feet}", "8 \\text{ inches}"),
    ("8 feet", "8 inches"),
    ("3 days", "3 hours"),
    ("second", "minute"),
    ("\\$36", "36^\\circ"),
    ("5\\%", "5"),
    ("A", "a"),
]

DIFFERENT_IN_BOTH = [
    ("\\frac{1}{2}", "2/4"),
    ("2", "\\frac{4}{2}"),
    ("8", "2^3"),
    ("1024", "2^{10}"),
    ("1000000", "10^{6}"),
    ("1000000", "1 million"),
    ("120", "5!"),
    ("10", "\\binom{5}{2}"),
    ("12345", "12\\,345"),
    ("5", "5 units"),
    ("5", "5 apples"),
    ("5", "5 dollars"),
    ("1,2", "2,1"),
    ("\\{1,2\\}", "\\{2,1\\}"),
    ("(-\\infty,0)\\cup(1,2)", "(1,2)\\cup(-\\infty,0)"),
    ("0.05", "5\\%"),
    ("2x", "f(x)=2x"),
    ("[1,2]", "x \\in [1,2]"),
    ("a+b+c", "c+b+a"),
    ("\\frac{1}{3}", "0.333"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(1,2,3)"),
    ("12,13", "12"),
    ("7", ""),
    ("", "7"),
    ("5", "7"),
    ("x", "__import__('os').system('touch pwned')"),
]

EQUAL_FOR_SYMPY = [
    ("\\frac{1}{4}", "0.25"),
    ("1.5", "1.50"),
    ("2\\sqrt{2}", "\\sqrt8"),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"),
    ("2x+1", "1+2x"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\\frac{3}{2}", "1\\frac{1}{2}"),
    ("A", "(A)"),
    ("(1/2,3)", "(0.5,3)"),
    ("\\frac{x}{2}", "\\frac{1}{2}x"),
    ("1/a", "a^{-1}"),
]

HANGS = [
    ("2x", "9**9**9**9"),
    ("5x", "10**10**10"),
    ("5x", "99999999!"),
    ("5x", "(x+1)**3000"),
    ("(1,5x)", "(1,9**9**9**9)"),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(workers=2, cpu_seconds=1) as pool:
        yield pool


def rows(*path: str) -> list[dict[str, object]]:
    folder = os.environ.get("E2H_DATA_DIR")
    if not folder:
        pytest.skip("E2H_DATA_DIR is not set: no grading cases here")
    return [json.loads(line) for line in Path(folder, *path).read_text(encoding="utf-8").splitlines()]


def test_both_graders_agree_where_no_algebra_is_asked(pool: WorkerPool) -> None:
    pairs = EQUAL_IN_BOTH + DIFFERENT_IN_BOTH
    expected = [EQUAL] * len(EQUAL_IN_BOTH) + [DIFFERENT] * len(DIFFERENT_IN_BOTH)
    for grader in (E2hStringGrader(), Prm800kGrader(pool)):
        assert list(zip(pairs, verdicts_of(grader, pairs), strict=True)) == list(
            zip(pairs, expected, strict=True)
        )


def test_algebra_separates_them(pool: WorkerPool) -> None:
    pairs = [*EQUAL_FOR_SYMPY, *[(b, a) for a, b in EQUAL_FOR_SYMPY]]
    wrong = [
        pair for pair, v in zip(pairs, verdicts_of(Prm800kGrader(pool), pairs), strict=True) if v != EQUAL
    ]
    assert not wrong
    wrong = [pair for pair, v in zip(pairs, verdicts_of(E2hStringGrader(), pairs), strict=True) if v == EQUAL]
    assert not wrong


def test_what_hangs_upstream_is_undecided(pool: WorkerPool) -> None:
    start = time.perf_counter()
    grader = Prm800kGrader(pool)
    assert verdicts_of(grader, HANGS) == [UNDECIDED] * len(HANGS)
    assert verdicts_of(grader, HANGS) == [UNDECIDED] * len(HANGS)
    assert grader.undecided == len(HANGS)  # counted once
    assert time.perf_counter() - start < 600
    assert set(verdicts_of(E2hStringGrader(), HANGS)) == {DIFFERENT}


def test_an_element_that_differs_decides_without_sympy(pool: WorkerPool) -> None:
    grade = grades_of(Prm800kGrader(pool), [("(5x,1/2)", "(9**9**9**9,2/4)")])[0]
    assert (grade.verdict, grade.tier) == (DIFFERENT, "string")


def test_tiers_and_times(pool: WorkerPool) -> None:
    grader = Prm800kGrader(pool)
    pairs = [("7", "7"), ("x+1", "1+x"), ("7", "7")]
    first = grades_of(grader, pairs)
    assert [grade.tier for grade in first] == ["string", "sympy", "string"]
    assert first[0].ms > 0 and first[1].ms > 0 and first[2].ms == 0
    assert [grade.ms for grade in grades_of(grader, pairs)] == [0, 0, 0]


def test_too_much_text_is_undecided(pool: WorkerPool) -> None:
    for grader in (E2hStringGrader(), Prm800kGrader(pool)):
        long = "\\pi+" * 5000
        grades = grades_of(grader, [("\\pi", long), (long, long), ("7", "x" * 1_000_000)])
        assert [grade.verdict for grade in grades] == [UNDECIDED, EQUAL, DIFFERENT]
        assert grades[0].tier == "size" and grader.undecided == 1
    grade = grades_of(Prm800kGrader(pool), [("x", "x+" * 1500 + "1")])[0]
    assert (grade.verdict, grade.tier) == (UNDECIDED, "size")


def test_versions_name_the_source(pool: WorkerPool) -> None:
    assert Prm800kGrader(pool).version.startswith("prm800k@00811d6 pylatexenc/")
    assert E2hStringGrader().version.startswith("e2h-string easy-to-hard@49c104a pylatexenc/")


def test_classes_are_connected_components(pool: WorkerPool) -> None:
    answers = ["12", None, "12 \\text{ and } 13", "12,13", "24/2", "3", "12.0"]
    # "12" and "12,13" are different, but both are equal to the second answer; 24/2 is not reduced
    assert E2hStringGrader().classes([answers, ["3"]]) == [[0, None, 0, 0, 1, 2, 0], [0]]
    assert Prm800kGrader(pool).classes([["x+1", "1+x", "\\frac14", "0.25"]]) == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (" \\text{5 cm} ", "5cm"),
        ("\\text{ 5 \\text{ cm} \\text{ m}}", "5 \\text{ cm} \\text{ m}"),  # raises upstream: two units
        ("\\frac12\\frac{3}4\\frac5{6}", "\\frac{1}{2}\\frac{3}4\\frac{5}{6}"),
        ("\\frac1", "\\frac1"),
        ("x \\frac", "x \\frac"),  # raises upstream
        ("\\sqrt 3", "\\sqrt{}3"),
        ("y \\sqrt", "y \\sqrt"),  # raises upstream
        ("ab=7", "7"),
        ("abc=7", "abc=7"),
        ("-3/4", "\\frac{-3}{4}"),
        ("03/4", "03/4"),
        (".5", "\\frac{1}{2}"),
        ("50\\%", "50"),
    ],
)
def test_hendrycks_form(answer: str, form: str) -> None:
    assert hendrycks_form(answer) == form


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("\\text{Two Words}", "twowords"),
        ("7 \\frac{3}{4}", "7+3/4"),
        ("3\\sqrt{2}", "3sqrt(2)"),
        ("1,000,000", "1000000"),
        ("(1,000, 2)", "(1,000,2)"),
        ("- 5", "-5"),
        ("5 \\text{ million}", "5*10^6"),
        ("12 inches^2", "12"),
        ("0.99999999", "1"),
        ("{1e3}", "1000"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("{" * 3000 + "\\pi", "\\pi"),  # too deep for the converter: upstream goes on with the LaTeX
        ("\\input{/etc/passwd}", ""),
    ],
)
def test_loose_form(answer: str, form: str) -> None:
    assert loose_form(answer) == form


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789xy+-*/^(){}[]\\frac sqrt,.$!%=ntе٣²\ud800\n\x00", max_size=30))
def test_no_text_raises(text: str) -> None:
    assert by_strings(text, text) is EQUAL
    by_strings("\\frac{1}{3}", text)
    by_strings(text, "(1,x)")


# The recording first removed outer dollar signs. Upstream does not, and finds no "k = " after one.
DOLLARS = [("$1/3$", "$k = \\frac{1}{3}$"), ("$7 = 11a+c$", "$11a+c$")]


def test_verdicts_recorded_from_upstream(pool: WorkerPool) -> None:
    recorded = {
        (str(row["gold"]), str(row["prediction"])): row["prm800k_grader"]
        for row in rows("grading_cases.jsonl")
        if row["prm800k_grader"] is not None
    }
    grader = Prm800kGrader(pool)
    assert disagreements(grader, recorded) == DOLLARS
    bare = {(gold.strip("$"), answer.strip("$")): equal for (gold, answer), equal in recorded.items()}
    assert len(bare) > 200
    assert disagreements(grader, bare) == []


def disagreements(grader: Prm800kGrader, recorded: dict[Pair, object]) -> list[Pair]:
    grades = grades_of(grader, list(recorded))
    return [
        pair
        for (pair, equal), grade in zip(recorded.items(), grades, strict=True)
        if equal is not (grade.verdict is EQUAL)
    ]


EQUAL_GOLDS = [
    ("10,\\!080", "10080"),
    ("120", "120^\\circ"),
    ("2 \\sqrt{5}", "2\\sqrt{5}"),
    ("30", "30^\\circ"),
    ("36", "36^\\circ"),
    ("36", "\\$36"),
    ("36^\\circ", "\\$36"),
    ("5", "x=5"),
    ("90", "90^\\circ"),
    ("\\frac14", "\\frac{1}{4}"),
]


def test_golds_of_math500_equal_themselves_and_few_others() -> None:
    golds = [str(row["answer"]) for row in rows("math", "math500.jsonl")]
    grader = E2hStringGrader()
    assert verdicts_of(grader, [(gold, gold) for gold in golds]) == [EQUAL] * 500
    distinct = sorted(set(golds))
    pairs = list(combinations(distinct, 2))
    equal = [pair for pair, v in zip(pairs, verdicts_of(grader, pairs), strict=True) if v is EQUAL]
    assert len(distinct) == 301
    assert sorted(equal) == sorted(EQUAL_GOLDS)


def test_sympy_finds_no_further_equal_golds(pool: WorkerPool) -> None:
    golds = sorted({str(row["answer"]) for row in rows("math", "math500.jsonl")})
    pairs = [pair for pair in combinations(golds, 2) if isinstance(by_strings(*pair), list)][::20]
    assert set(verdicts_of(Prm800kGrader(pool), pairs)) == {DIFFERENT}
