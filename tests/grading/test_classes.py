import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.classes import MAX_HEADS, answer_classes, pairwise_classes
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.graders import Grade, Grader, Verdict, grader
from e2h_pipeline.grading.verdicts import Pair

ANSWERS = [
    "1/2",
    "0.5",
    "\\frac{1}{2}",
    "$\\frac12$",
    "3",
    "3.0",
    "x+1",
    "1+x",
    "2^{10}",
    "1024",
    "no idea",
    "",
]


@pytest.fixture(scope="module")
def math_verify() -> Iterator[Grader]:
    with grader("math-verify", workers=2) as judge:
        yield judge


def test_exact_classes_are_strings() -> None:
    assert answer_classes(["7", None, " 7", "7.0", "7"], ExactGrader()) == [0, None, 0, 1, 0]
    assert answer_classes([], ExactGrader()) == []
    assert ExactGrader().classes([["1"], [None], ["1", "2"]]) == [[0], [None], [0, 1]]


def test_equal_answers_share_a_class(math_verify: Grader) -> None:
    assert answer_classes(ANSWERS, math_verify) == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from(ANSWERS)), max_size=12), st.randoms())
def test_classes_do_not_depend_on_order(
    math_verify: Grader, answers: list[str | None], rng: random.Random
) -> None:
    order = list(range(len(answers)))
    rng.shuffle(order)
    one = answer_classes(answers, math_verify)
    shuffled = answer_classes([answers[i] for i in order], math_verify)
    other = {i: shuffled[place] for place, i in enumerate(order)}
    for i in order:
        assert (one[i] is None) == (answers[i] is None) == (other[i] is None)
        for j in order:
            assert (one[i] == one[j]) == (other[i] == other[j])


def test_comparisons_are_bounded() -> None:
    compared = 0

    def same_length(pairs: Sequence[Pair]) -> list[Grade]:
        nonlocal compared
        compared += len(pairs)
        return [
            Grade(Verdict.EQUAL if len(gold.answer) == len(answer) else Verdict.DIFFERENT, "length")
            for gold, answer in pairs
        ]

    classes = pairwise_classes([[f"{i:04d}" for i in range(1000)] + ["12345"]], same_length)
    assert compared <= MAX_HEADS * 1001
    assert classes == [[0] * 1000 + [1]]
