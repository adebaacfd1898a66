"""Solutions that others have rated step by step: one record for every format they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from e2h_pipeline.problems.duplicates import spacing_key
from e2h_pipeline.problems.jsonl import BadLine
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import ANSWER_MARKER, SEPARATOR

T = TypeVar("T")

RIGHT_RATING, NEUTRAL_RATING, WRONG_RATING = 1, 0, -1


@dataclass(frozen=True)
class LabelledSolution:
    """A solution, or the beginning of one, with a rating per step: 1 right, 0 neutral, -1 wrong, None not rated.

    The problem is known by `unique_id`, or where that is None by the text of its question. `level` is None
    where the data does not tell it. `# Answer` opens the answer block; only the last step may have one.
    """

    file: str
    line: int
    unique_id: str | None
    level: int | None
    question: str
    steps: tuple[str, ...]
    ratings: tuple[int | None, ...]


@dataclass(frozen=True)
class LabelledSolutions:
    """All that could be read, counts of what it is made of, and the lines that do not pass."""

    solutions: tuple[LabelledSolution, ...]
    counts: Mapping[str, int]
    bad_lines: tuple[BadLine, ...]


def refuse_if_all_bad(files: Iterable[Path], found: LabelledSolutions) -> LabelledSolutions:
    """`found` as it is, unless not one line of it passes.

    Raises:
        ProblemError: there are bad lines and no solutions: most likely a file of another format.
    """
    if found.bad_lines and not found.solutions:
        names = ", ".join(str(file) for file in files)
        raise ProblemError(
            f"{names}: none of {len(found.bad_lines)} lines can be used; the first: {found.bad_lines[0]};"
            " set labels.path to a file of the format that labels.source names"
        )
    return found


def by_question(problems: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of problems by `spacing_key` of their question; of two with the same text the first."""
    found: dict[str, dict[str, Any]] = {}
    for problem in problems:
        found.setdefault(spacing_key(problem["question"]), problem)
    return found


def problem_of(solution: LabelledSolution, by_id: Mapping[str, T], by_text: Mapping[str, T]) -> T | None:
    """The problem that a solution is of, by its id, or where it has none by the text of its question.

    Args:
        by_text: as of `by_question`.
    """
    if solution.unique_id is None:
        return by_text.get(spacing_key(solution.question))
    return by_id.get(solution.unique_id)


def segments_of(steps: Sequence[str], marks: Sequence[T]) -> tuple[list[str], list[T]]:
    """Rated steps as segments of our text format, and the mark of each.

    A blank line inside a step would read as two steps, so it becomes a line break; the answer block
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
            segments.append(ANSWER_MARKER + SEPARATOR + answer.strip())
            kept.append(mark)
    return segments, kept
