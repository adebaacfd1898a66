"""The door of supervision: solutions from files are matched to easy problems by id and by text, and
rows that train are checked by text. It also writes steps in a domain's text format.

An id alone is not trusted: whoever wrote a file may have put a hard problem under an easy one's id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from e2h_pipeline.problems.rated_solutions import LabelledSolution
from e2h_pipeline.problems.same_problem import same_key, same_problem
from e2h_pipeline.solutions import ANSWER_MARKER, TextFormat

T = TypeVar("T")
Problem = dict[str, Any]

OTHER_TEXT = "its text is not that of the problem its id names"


def by_question(problems: Iterable[Problem]) -> dict[str, Problem]:
    """Rows of problems by `same_key` of their question; the first of two with the same text."""
    found: dict[str, Problem] = {}
    for problem in problems:
        found.setdefault(same_key(problem["question"]), problem)
    return found


def problem_of(
    solution: LabelledSolution, by_id: Mapping[str, Problem], by_text: Mapping[str, Problem]
) -> Problem | None:
    """The problem of a solution, by id, or without an id by the text of its question.

    Args:
        by_text: from `by_question`.
    """
    if solution.unique_id is None:
        return by_text.get(same_key(solution.question))
    return by_id.get(solution.unique_id)


def has_other_text(solution: LabelledSolution, problem: Problem) -> bool:
    """Whether the question of a solution is another problem than the one its id names. A file that
    gives no question is believed."""
    return bool(solution.question.strip()) and not same_problem(solution.question, problem["question"])


def of_easy_problems(
    rows: Iterable[Problem], easy: Mapping[str, Problem], dropped: Counter[str]
) -> list[Problem]:
    """The rows whose id is that of an easy problem, and whose question is that problem's.

    Every source goes through here, also those of installed packages.

    Args:
        rows: with `problem_id` and `question`.
        easy: rows of the easy problems by id.
        dropped: counts rows that are left out, by reason.
    """
    kept = []
    for row in rows:
        problem = easy.get(row["problem_id"])
        if problem is None:
            dropped["not an easy problem of this split"] += 1
        elif not same_problem(row["question"], problem["question"]):
            dropped[OTHER_TEXT] += 1
        else:
            kept.append(row)
    return kept


def segments_of(steps: Sequence[str], marks: Sequence[T], text: TextFormat) -> tuple[list[str], list[T]]:
    """The rated steps of a `LabelledSolution` as segments of a text format, and the mark of each.

    A blank line inside a step would read as two steps, so it becomes a line break. The answer block
    of a step that ends in one is a segment of its own and shares the step's mark.
    """
    segments: list[str] = []
    kept: list[T] = []
    for step, mark in zip(steps, marks, strict=True):
        body, marker, answer = step.partition(ANSWER_MARKER)
        lines = "\n".join(line for line in body.strip().splitlines() if line.strip())
        if lines:
            segments.append(lines)
            kept.append(mark)
        if marker:
            segments.append(text.answer_marker + text.separator + answer.strip())
            kept.append(mark)
    return segments, kept
