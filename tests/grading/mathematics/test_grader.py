import random
from collections.abc import Iterator

import pytest
from graded_texts import grades_of
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.classes import answer_classes
from e2h_pipeline.grading.graders import Grade, Grader, Verdict, grader

EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader("math", workers=1, cpu_seconds=2) as found:
        yield found


def tiers(judge: Grader, pairs: list[tuple[str, str]]) -> list[tuple[Verdict, str]]:
    return [(grade.verdict, grade.tier) for grade in grades_of(judge, pairs)]


def test_tiers(judge: Grader) -> None:
    pairs = [
        ("x", " x "),
        ("1/2", "0.5"),
        ("1/2", "1/3"),
        ("Perhaps?!", "No way"),
        ("1", "1" * 3000),
        ("9^{9^{9^9}}", "3"),
    ]
    assert tiers(judge, pairs) == [
        (EQUAL, "text"),
        (EQUAL, "form"),
        (DIFFERENT, "form"),
        (DIFFERENT, "unread"),
        (UNDECIDED, "size"),
        (UNDECIDED, "form"),
    ]


def test_sums_and_integrals_go_to_a_worker(judge: Grader) -> None:
    pairs = [
        ("\\int_0^1 x \\, dx", "1/2"),
        ("\\sum_{k=1}^{10} k", "54"),
        ("\\sum_{k=1}^{n} k", "\\sum_{k=1}^{n} k + 0"),
    ]
    expected = [(EQUAL, "sympy"), (DIFFERENT, "sympy"), (EQUAL, "form")]
    assert tiers(judge, pairs) == tiers(judge, [(b, a) for a, b in pairs]) == expected


def test_nothing_is_guessed_from_what_cannot_be_read(judge: Grader) -> None:
    pairs = [("0", "a0)"), ("2", "2(a^2))/(bc)"), ("3", "\\foo 3"), ("4", "\\boxed{4")]
    assert tiers(judge, pairs) == [(DIFFERENT, "unread")] * 4


def test_undecided_is_counted() -> None:
    with grader("math") as fresh:
        assert grades_of(fresh, [("2", "9^{9^{9^9}}")])[0].verdict is UNDECIDED
        assert fresh.undecided == 1


def test_a_grade_says_what_it_took(judge: Grader) -> None:
    grade = grades_of(judge, [("\\frac{314159}{271828}", "\\frac{271828}{314159}")])[0]
    assert isinstance(grade, Grade)
    assert 0 <= grade.ms < 1000
    assert judge.version.startswith("math/")


ANSWERS = ["1/2", "0.5", "50\\%", "50", "x=0.5", "y=0.5", "8 feet", "96 inches", "8", "8 inches", "1,2", "2,1", "(1,2)",
           "3,1,2", "2,1,3", "1,2,3", "\\text{no}", "no", "9^{9^9}", "\\foo 3", "", "1:2",
           "(-\\infty,2)", "x<2"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from(ANSWERS)), max_size=14), st.randoms())
def test_classes_are_a_partition_that_no_order_changes(
    judge: Grader, answers: list[str | None], rng: random.Random
) -> None:
    order = list(range(len(answers)))
    rng.shuffle(order)
    one = answer_classes(answers, judge)
    shuffled = answer_classes([answers[i] for i in order], judge)
    other = {i: shuffled[place] for place, i in enumerate(order)}
    for i in order:
        assert (one[i] is None) == (answers[i] is None) == (other[i] is None)
        for j in order:
            assert (one[i] == one[j]) == (other[i] == other[j])
            if answers[i] is not None and one[i] == one[j]:  # voting together means equal pairs
                assert grades_of(judge, [(str(answers[i]), str(answers[j]))])[0].verdict is EQUAL


def test_a_measure_is_settled_by_votes(judge: Grader) -> None:
    assert answer_classes(["8 feet", "8", "8 inches", "8 feet"], judge) == [0, 0, 1, 0]
    assert answer_classes(["10\\%", "0.1", "0.1", "10"], judge) == [0, 0, 0, 1]
