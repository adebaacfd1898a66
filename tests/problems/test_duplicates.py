import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems.duplicates import (
    duplicate_groups,
    exact_key,
    layout_key,
    near_duplicates,
    spacing_key,
)
from e2h_pipeline.problems.records import Problem


def problem(name: str, question: str, level: int = 1) -> Problem:
    return Problem(name, level, "Algebra", question, (), "0")


def names(groups: list[tuple[Problem, ...]]) -> list[list[str]]:
    return [[p.problem_id for p in group] for group in groups]


QUESTIONS = [
    problem("a", "What is $f(6)-f(2)$?"),
    problem("b", "What is $f(6)-f(2)$?\n"),
    problem("c", "What is\n\\[f(6) - f(2)?\\]"),
    problem("d", "What is $\\dfrac{1}{2}$?"),
    problem("e", "What is $\\tfrac{1}{2} \\, $?"),
    problem("f", "Find $\\left(x^{2}\\right)$."),
    problem("g", "Find $(x^2)$."),
]


def test_each_key_is_blind_to_more() -> None:
    assert names(duplicate_groups(QUESTIONS, exact_key)) == [["a", "b"]]
    assert names(duplicate_groups(QUESTIONS, spacing_key)) == [["a", "b", "c"], ["d", "e"]]
    assert names(duplicate_groups(QUESTIONS, layout_key)) == [["a", "b", "c"], ["d", "e"], ["f", "g"]]


@given(st.text(alphabet="ab$\\{}[] ,quadfrc\n", max_size=30), st.text(alphabet="ab$\\{}[] ,\n", max_size=30))
def test_finer_keys_imply_coarser_ones(one: str, other: str) -> None:
    if exact_key(one) == exact_key(other):
        assert spacing_key(one) == spacing_key(other)
    if spacing_key(one) == spacing_key(other):
        assert layout_key(one) == layout_key(other)


def test_near_duplicates_by_hand() -> None:
    # 14 words have 10 five-grams; one other last word leaves 9 shared of 11.
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    pool = [problem("near", f"{words} fifteen"), problem("far", "one two three four five nine ten")]
    (pair,) = near_duplicates(pool, [problem("asked", f"{words} fourteen")])
    assert (pair.first.problem_id, pair.second.problem_id) == ("asked", "near")
    assert pair.similarity == pytest.approx(9 / 11)
    assert near_duplicates(pool, [problem("asked", f"{words} fourteen")], threshold=0.82) == []


def test_short_questions_compare_whole() -> None:
    pool = [problem("same", "What is $2+2$?"), problem("other", "What is it?"), problem("empty", "")]
    found = near_duplicates(pool, [problem("asked", "What is $2 + 2$?"), problem("void", "")])
    assert {(p.first.problem_id, p.second.problem_id) for p in found} == {
        ("asked", "same"),
        ("void", "empty"),
    }
