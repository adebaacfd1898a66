"""Ratings from files as labels of easy problems, shared by PRM800K, Math-Shepherd and PRMBench.

A file of ratings can be asked, too: its solutions are candidates, and their ratings come to light as
labels are bought. So a study of selection is replayed on labels that people gave long ago.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from e2h_pipeline.problems.files import known_file
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
from e2h_pipeline.supervision.source import AskedSource, LabelJob, LabelledRows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2h_pipeline.problems.rated_solutions import LabelledSolution, LabelledSolutions
    from e2h_pipeline.solutions import TextFormat


class Rated(AskedSource, Protocol):
    """A source of ratings in files. Subclasses say which files, how to read them, and what a neutral rating means."""

    _known: Rows | None = None
    _once: LabelOnce | None = None

    def read(self, options: Any) -> LabelledSolutions:
        """All ratings of the files."""
        ...

    def neutral(self, options: Any) -> float:
        """The label of a neutral rating."""
        return UNLABELLED

    def draw(self, job: LabelJob) -> LabelledRows:
        """All ratings of easy problems as labels; a step that solutions share is labelled once."""
        found, text = self.read(job.options), job.domain.text
        return with_ratings(rated_labels(found, job.easy, text, self.neutral(job.options)), found, text)

    def candidates(self, job: LabelJob) -> Rows:
        """The distinct rated solutions, without their labels."""
        return [{**row, "labels": []} for row in self._rated(job)]

    def label(self, job: LabelJob, rows: Rows) -> LabelledRows:
        """The ratings of chosen solutions. A step after the same steps is labelled in the first solution that was
        asked about, as in `rated_labels`."""
        self._once = once = self._once or LabelOnce()
        known = {(row["problem_id"], row["sample"]): row for row in self._rated(job)}
        labelled = []
        for row in rows:
            found = known[row["problem_id"], row["sample"]]
            spans = job.domain.text.parse(found["completion"]).spans
            segments = [found["completion"][start:stop].strip() for start, stop in spans]
            labels = once.new_labels(found["problem_id"], segments, found["labels"])
            labelled.append({**found, "labels": labels})
        new = [row for row in labelled if any(label != UNLABELLED for label in row["labels"])]
        return LabelledRows(new, {"dropped": {"no new label": len(rows) - len(new)}})

    def _rated(self, job: LabelJob) -> Rows:
        if self._known is None:
            found, neutral = self.read(job.options), self.neutral(job.options)
            self._known = rated_labels(found, job.easy, job.domain.text, neutral, shared=False).rows
        return self._known


class RatedFile(Rated, Protocol):
    """Ratings in one file, which the recipe names or which lies in `steps/` of E2H_DATA_DIR.

    Attributes:
        names: of the file there; the first that exists is taken.
        origin: where the file comes from, for people.
    """

    names: ClassVar[tuple[str, ...]]
    origin: ClassVar[str]

    def files(self, options: Any) -> list[Path]:
        """The one file."""
        found = Path(options.path) if options.path else known_file("steps", self.names)
        if found is None:
            raise ProblemError(
                f"labels.source={options.source} needs a file: set labels.path to it, or put {self.names[0]} "
                f"({self.origin}) into steps/ of E2H_DATA_DIR"
            )
        return [found]

    def read_file(self, file: Path) -> LabelledSolutions:
        """All ratings of the file."""
        ...

    def read(self, options: Any) -> LabelledSolutions:
        """See `Rated.read`."""
        files = self.files(options)
        return refuse_if_empty(self.read_file(files[0]), files)


def rated_labels(
    found: LabelledSolutions,
    problems: Mapping[str, dict[str, Any]],
    text: TextFormat,
    neutral: float = UNLABELLED,
    *,
    shared: bool = True,
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
        shared: label a step that several solutions share once, and none after an error. False: each distinct
            solution has all its ratings.
    """
    by_text = by_question(problems.values())
    meaning = {RIGHT_RATING: RIGHT, NEUTRAL_RATING: neutral, WRONG_RATING: WRONG, None: UNLABELLED}
    once = LabelOnce()
    rows: Rows = []
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for solution in found.solutions:
        problem = problem_of(solution, problems, by_text)
        if problem is None:
            dropped[_why_unknown(solution)] += 1
            continue
        if has_other_text(solution, problem):
            dropped[OTHER_TEXT] += 1
            continue
        marks = [meaning[rating] for rating in solution.ratings]
        segments, labelled = segments_of(solution.steps, marks, text)
        repeated = (problem["problem_id"], *segments) in seen
        seen.add((problem["problem_id"], *segments))
        if repeated and not shared:
            dropped["the same solution again"] += 1
            continue
        labels = once.new_labels(problem["problem_id"], segments, labelled) if shared else labelled
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
