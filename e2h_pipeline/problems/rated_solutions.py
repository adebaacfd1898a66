"""Solutions that others have rated step by step: one record for every format they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2h_pipeline.problems.jsonl import BadLine
from e2h_pipeline.problems.records import ProblemError

RIGHT_RATING, NEUTRAL_RATING, WRONG_RATING = 1, 0, -1


@dataclass(frozen=True)
class LabelledSolution:
    """A solution, or the beginning of one, with a rating per step: 1 right, 0 neutral, -1 wrong,
    None not rated.

    The problem is found by `unique_id`, or by the text of its question where that is None. `level`
    is None where the data does not say it. `# Answer` opens the answer block; only the last step
    may have one.
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
    """All that could be read, counts of what it is made of, and the lines that cannot be used."""

    solutions: tuple[LabelledSolution, ...]
    counts: Mapping[str, int]
    bad_lines: tuple[BadLine, ...]


def refuse_if_all_bad(files: Iterable[Path], found: LabelledSolutions) -> LabelledSolutions:
    """`found` as it is, if a line of it can be used.

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
