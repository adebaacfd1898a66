"""TODO: docstring."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.jsonl import told_bad_lines
from e2h_pipeline.problems.rated_solutions import NEUTRAL_RATING, RIGHT_RATING, WRONG_RATING
from e2h_pipeline.solutions import SEPARATOR, parse_completion
from e2h_pipeline.supervision.matching import by_question, problem_of, segments_of
from e2h_pipeline.supervision.rows import (
    RIGHT,
    UNLABELLED,
    WRONG,
    Rows,
    labelled_row,
)

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolution, LabelledSolutions


NEUTRAL = {"positive": RIGHT, "negative": WRONG, "soft": 0.5, "drop": UNLABELLED}
"""Label of a neutral rating by `labels.neutral`."""


def rated_labels(
    found: LabelledSolutions, easy: Mapping[str, dict[str, Any]], neutral: float
) -> tuple[Rows, dict[str, Any]]:
    """Rated solutions of easy problems as rows; everything else is counted, not used.

    Problems are known by id, or by the text of their question where the data has no ids.
    """
    by_text = by_question(easy.values())
    meaning = {RIGHT_RATING: RIGHT, NEUTRAL_RATING: neutral, WRONG_RATING: WRONG, None: UNLABELLED}
    once = LabelOnce()
    rows: Rows = []
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for solution in found.solutions:
        problem = problem_of(solution, easy, by_text)
        if problem is None:
            dropped[_why_unknown(solution)] += 1
            continue
        segments, shared = segments_of(solution.steps, [meaning[rating] for rating in solution.ratings])
        labels = once.new_labels(problem["problem_id"], segments, shared)
        if all(label == UNLABELLED for label in labels):
            dropped["no new label"] += 1
            continue
        completion = SEPARATOR.join(segments)
        finished = parse_completion(completion).answer is not None
        if not finished:  # or the step before the cut would be known as wrong by its missing end
            completion += SEPARATOR
        number = numbers[problem["problem_id"]]
        numbers[problem["problem_id"]] += 1
        rows.append(labelled_row(problem, number, completion, labels, finished))
    return rows, {
        "dropped": dict(dropped),
        "repeated_steps": once.repeated,
        "conflicting_steps": once.conflicting,
        "source_records": dict(found.counts),
        **told_bad_lines(found.bad_lines),
    }


def _why_unknown(solution: LabelledSolution) -> str:
    if solution.unique_id is not None and solution.level is None:
        return "level unknown"
    return "not an easy problem of this split"


class LabelOnce:
    """Labels that are given once: the first one of a step behind a prefix of a problem.

    Attributes:
        repeated: labels that were not given again.
        conflicting: of these, how many differ from the first.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, float] = {}
        self.repeated = self.conflicting = 0

    def new_labels(self, problem_id: str, segments: Sequence[str], labels: Sequence[float]) -> list[float]:
        """A label per segment: its own where it is the first there, else -1; none behind an error.

        What counts as an error is the first label, so that a solution which goes on behind a step that
        was first called wrong gets no more labels.
        """
        key, kept, failed = problem_id.encode(), [], False
        for segment, label in zip(segments, labels, strict=True):
            key = hashlib.sha256(key + b"\0" + segment.encode()).digest()
            first = self._first.get(key)
            kept.append(UNLABELLED if failed or first is not None else label)
            if not failed and label != UNLABELLED:
                self._first.setdefault(key, label)
                self.repeated += first is not None
                self.conflicting += first is not None and first != label
            failed = failed or (label if first is None else first) == WRONG
        return kept
