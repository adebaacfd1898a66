"""Solutions that people rated (PRM800K): steps rated right are learned, the others only read.

The paper's code (prepare_prm800k_sft) makes an example for each right step. Here a solution is one
example, with a loss on all its right steps and none after a wrong one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.math.prm800k import prm800k_files, read_prm800k
from e2h_pipeline.problems.rated_solutions import RIGHT_RATING, WRONG_RATING, LabelledSolution
from e2h_pipeline.supervision.matching import OTHER_TEXT, has_other_text, problem_of, segments_of
from e2h_pipeline.supervision.solutions.source import (
    DrawnSolutions,
    SolutionJob,
    SolutionSource,
    solution_row,
)

if TYPE_CHECKING:
    from e2h_pipeline.problems.rated_solutions import LabelledSolutions
    from e2h_pipeline.recipe import Prm800kSolutions


class RightSteps(SolutionSource):
    """Rated solutions, up to their last step that is rated right."""

    def files(self, options: Prm800kSolutions) -> list[Path]:
        """One file, or those of a folder."""
        return prm800k_files(_path(options), "solutions.path")

    def read(self, options: Prm800kSolutions) -> LabelledSolutions:
        """All ratings of the files."""
        self.files(options)  # raises an error that names solutions.path
        return read_prm800k(_path(options))

    def draw(self, job: SolutionJob) -> DrawnSolutions:
        """Solutions of training problems, each beginning learned once."""
        found = self.read(job.options)
        dropped: Counter[str] = Counter()
        rows = list(_rated_right(found.solutions, job, dropped))
        return DrawnSolutions(rows, dropped, found.bad_lines)


def _path(options: Prm800kSolutions) -> Path | None:
    return Path(options.path) if options.path else None


def _rated_right(
    found: tuple[LabelledSolution, ...], job: SolutionJob, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Solutions up to their last step rated right and not yet learned after the same steps."""
    by_id, by_text, text = {row["problem_id"]: row for row in job.train}, job.by_text(), job.text
    known: set[tuple[str, ...]] = set()
    for solution in found:
        problem = problem_of(solution, by_id, by_text)
        if problem is None:
            dropped["not an easy training problem"] += 1
            continue
        if has_other_text(solution, problem):
            dropped[OTHER_TEXT] += 1
            continue
        segments, ratings = segments_of(solution.steps, solution.ratings, text)
        learned, last = [], 0
        for place, rating in enumerate(ratings, start=1):
            if rating == WRONG_RATING:
                break
            beginning = (problem["problem_id"], *segments[:place])
            learned.append(rating == RIGHT_RATING and beginning not in known)
            if learned[-1]:
                known.add(beginning)
                last = place
        if not last:
            dropped["no new right step"] += 1
            continue
        completion = text.separator.join(segments[:last])
        finished = text.parse(completion).answer is not None
        if not finished:
            completion += text.separator
        yield solution_row(
            problem, "prm800k", problem["question"], completion, learned[:last], finished=finished
        )
