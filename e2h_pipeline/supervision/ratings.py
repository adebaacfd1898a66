"""Ratings from files as labels of easy problems, shared by PRM800K and Math-Shepherd."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.jsonl import told_bad_lines
from e2h_pipeline.problems.rated_solutions import NEUTRAL_RATING, RIGHT_RATING, WRONG_RATING
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.supervision.cost import ASKED
from e2h_pipeline.supervision.matching import (
    OTHER_TEXT,
    by_question,
    has_other_text,
    problem_of,
    segments_of,
)
from e2h_pipeline.supervision.once import LabelOnce
from e2h_pipeline.supervision.rows import RIGHT, UNLABELLED, WRONG, Rows, labelled_row
from e2h_pipeline.supervision.source import LabelledRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from e2h_pipeline.problems.rated_solutions import LabelledSolution, LabelledSolutions
    from e2h_pipeline.solutions import TextFormat


def rated_labels(
    found: LabelledSolutions,
    problems: Mapping[str, dict[str, Any]],
    text: TextFormat,
    neutral: float = UNLABELLED,
) -> LabelledRows:
    """Rated solutions of some problems as rows; everything else is counted, not used.

    Problems are matched by id, or by the text of their question where the data has no ids. A
    solution with a problem's id and another problem's question is not used. The same
    step after the same steps of a problem is labelled once, in the first solution that has it (as
    in the paper's code, which ignores the question).

    Args:
        problems: rows of problems by id; of the easy ones where the labels train.
        text: the domain's format.
        neutral: label of a neutral rating.
    """
    by_text = by_question(problems.values())
    meaning = {RIGHT_RATING: RIGHT, NEUTRAL_RATING: neutral, WRONG_RATING: WRONG, None: UNLABELLED}
    once = LabelOnce()
    rows: Rows = []
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for solution in found.solutions:
        problem = problem_of(solution, problems, by_text)
        if problem is None:
            dropped[_why_unknown(solution)] += 1
            continue
        if has_other_text(solution, problem):
            dropped[OTHER_TEXT] += 1
            continue
        marks = [meaning[rating] for rating in solution.ratings]
        segments, shared = segments_of(solution.steps, marks, text)
        labels = once.new_labels(problem["problem_id"], segments, shared)
        if all(label == UNLABELLED for label in labels):
            dropped["no new label"] += 1
            continue
        completion = text.separator.join(segments)
        finished = text.parse(completion).answer is not None
        if not finished:  # else the missing separator would mark the last step as wrong
            completion += text.separator
        number = numbers[problem["problem_id"]]
        numbers[problem["problem_id"]] += 1
        rows.append(labelled_row(problem, number, completion, labels, finished))
    return LabelledRows(rows, {"dropped": dict(dropped), **_told(found, once)})


def with_ratings(labelled: LabelledRows, found: LabelledSolutions, text: TextFormat) -> LabelledRows:
    """`rated_labels` of `found`, with the segments that have a rating of their own, which is what
    was paid for: an answer block shares its step's, and a neutral one counts whatever its label."""
    rated: dict[str, list[bool]] = {}
    for solution in found.solutions:
        numbered = list(enumerate(solution.ratings))
        segments, marks = segments_of(solution.steps, numbered, text)
        own = [
            rating is not None and (not place or marks[place - 1][0] != number)
            for place, (number, rating) in enumerate(marks)
        ]
        name = text.separator.join(segments)
        rated[name] = [a or b for a, b in zip(own, rated.get(name, own), strict=True)]
    rows = [{**row, ASKED: rated[row["completion"].removesuffix(text.separator)]} for row in labelled.rows]
    return replace(labelled, rows=rows)


def refuse_if_empty(found: LabelledSolutions, files: Sequence[Path]) -> LabelledSolutions:
    """`found`, if it has any labels.

    Raises:
        ProblemError: the files have no labels.
    """
    if not found.solutions:
        raise ProblemError(
            f"{', '.join(map(str, files))}: no labels found; restore the data, or set labels.path"
        )
    return found


def _told(found: LabelledSolutions, once: LabelOnce) -> dict[str, Any]:
    return {
        "repeated_steps": once.repeated,
        "conflicting_steps": once.conflicting,
        "source_records": dict(found.counts),
        **told_bad_lines(found.bad_lines),
    }


def _why_unknown(solution: LabelledSolution) -> str:
    if solution.unique_id is not None and solution.level is None:
        return "level unknown"
    return "not an easy problem of this split"
