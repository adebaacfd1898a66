"""The solutions that come with the problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.supervision.solutions.source import (
    DrawnSolutions,
    Rows,
    SolutionJob,
    SolutionSource,
    whole_solution,
)

if TYPE_CHECKING:
    from e2h_pipeline.solutions import TextFormat


class Reference(SolutionSource):
    """One solution of each training problem."""

    def draw(self, job: SolutionJob) -> DrawnSolutions:
        """All of them."""
        return DrawnSolutions(reference_solutions(job.train, job.text))


def reference_solutions(problems: Iterable[Mapping[str, Any]], text: TextFormat) -> Rows:
    """The solutions that come with problems, as rows of `easy_solutions`."""
    rows = []
    for problem in problems:
        completion = text.completion(problem["steps"], problem["answer"])
        rows.append(whole_solution(problem, "reference", problem["question"], completion, text))
    return rows
