"""Solutions that others have rated step by step: one record for every format they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from e2h_pipeline.problems.jsonl import BadLine
from e2h_pipeline.problems.records import ProblemError

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
