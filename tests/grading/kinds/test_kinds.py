"""Our grader on made pairs of every kind; how they are made says what is right."""

from collections.abc import Iterator, Sequence

import pytest

from e2h_pipeline.grading.graders import Grader, Verdict, grader
from e2h_pipeline.grading.kinds.answers import ANSWERS
from e2h_pipeline.grading.kinds.cases import Case
from e2h_pipeline.grading.kinds.responses import RESPONSES
from e2h_pipeline.grading.mathematics.extract import extract
from e2h_pipeline.grading.verdicts import Gold

SEED = 20261130
PAIRS = 30
"""Equal pairs of a kind, and unequal ones. The benchmark draws more."""


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader("math", workers=1) as opened:
        yield opened


def disagreements(judge: Grader, cases: Sequence[Case], answers: Sequence[str]) -> list[tuple[object, ...]]:
    grades = judge.grade_pairs([(Gold(c.gold, c.question), a) for c, a in zip(cases, answers, strict=True)])
    return [
        (case.gold, answer, case.equal, grade)
        for case, answer, grade in zip(cases, answers, grades, strict=True)
        if (grade.verdict is Verdict.EQUAL) != case.equal
    ]


@pytest.mark.parametrize("kind", ANSWERS.draws)
def test_answers(judge: Grader, kind: str) -> None:
    cases = ANSWERS.cases_of(kind, PAIRS, SEED)
    assert disagreements(judge, cases, [case.text for case in cases]) == []


@pytest.mark.parametrize("kind", RESPONSES.draws)
def test_responses(judge: Grader, kind: str) -> None:
    cases = RESPONSES.cases_of(kind, PAIRS, SEED)
    found = [extract(case.text) for case in cases]
    assert disagreements(judge, cases, ["" if f is None else f.answer for f in found]) == []


def test_pairs_depend_on_kind_and_seed_alone() -> None:
    first, *_ = ANSWERS.draws
    assert ANSWERS.cases(2, 7)[:4] == ANSWERS.cases_of(first, 5, 7)[:4] != ANSWERS.cases_of(first, 2, 8)
    assert [case.equal for case in ANSWERS.cases_of(first, 2, 7)] == [True, False] * 2


def test_a_grader_of_texts_fails_them() -> None:
    """The pairs can tell a good grader from a poor one."""
    cases = ANSWERS.cases(PAIRS, SEED)
    with grader("exact") as texts:
        right = sum(case.equal for case in cases) - len(disagreements(texts, cases, [c.text for c in cases]))
    assert right < len(cases) / 8
