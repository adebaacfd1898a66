"""Grading of plain texts: most tests of grading need no problem."""

from collections.abc import Iterable

from e2h_pipeline.grading.verdicts import Gold, Grade, Grader, Verdict


def grades_of(judge: Grader, texts: Iterable[tuple[str, str]]) -> list[Grade]:
    """The grade of each (gold answer, answer)."""
    return judge.grade_pairs([(Gold(gold), answer) for gold, answer in texts])


def verdicts_of(judge: Grader, texts: Iterable[tuple[str, str]]) -> list[Verdict]:
    """The verdicts of `grades_of`."""
    return [grade.verdict for grade in grades_of(judge, texts)]
