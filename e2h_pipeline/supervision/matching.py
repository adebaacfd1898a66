"""Match solutions from files to problems, and write their steps in a domain's text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from e2h_pipeline.problems.duplicates import spacing_key
from e2h_pipeline.problems.rated_solutions import LabelledSolution
from e2h_pipeline.solutions import ANSWER_MARKER, TextFormat

T = TypeVar("T")


def by_question(problems: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of problems by `spacing_key` of their question; the first of two with the same text."""
    found: dict[str, dict[str, Any]] = {}
    for problem in problems:
        found.setdefault(spacing_key(problem["question"]), problem)
    return found


def problem_of(solution: LabelledSolution, by_id: Mapping[str, T], by_text: Mapping[str, T]) -> T | None:
    """The problem of a solution, by id, or without an id by the text of its question.

    Args:
        by_text: from `by_question`.
    """
    if solution.unique_id is None:
        return by_text.get(spacing_key(solution.question))
    return by_id.get(solution.unique_id)


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
