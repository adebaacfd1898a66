"""Records of MATH, from a file or the Hub, as problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.grading.mathematics.extract import last_boxed
from e2h_pipeline.problems.jsonl import field
from e2h_pipeline.problems.math.steps import split_steps
from e2h_pipeline.problems.records import Problem, ProblemError

_LEVEL_TEXT = re.compile(r"(?:[Ll]evel )?([1-5])")


@dataclass(frozen=True)
class Source:
    """All records, the benchmark's among them; levels may be unknown."""

    math: Sequence[Problem]
    benchmark: Sequence[Problem]


def problem_of_record(record: dict[str, Any], problem_id: str, where: Path | str, line: int) -> Problem:
    """A record as a problem. Where `answer` is missing (Hub), it is the last box of the solution.

    Args:
        where: file or data set, for errors.
        line: of the file, or row of the data set, for errors.

    Raises:
        ProblemError: a field is missing or cannot be used.
    """
    solution = field(record, "solution", str, where, line)
    if "answer" in record or "unique_id" in record:
        answer = field(record, "answer", str, where, line)
    else:
        answer = last_boxed(solution) or ""
    return Problem(
        problem_id=problem_id,
        level=_level(record, where, line),
        subject=field(
            record, "type" if "type" in record and "subject" not in record else "subject", str, where, line
        ),
        question=field(record, "problem", str, where, line),
        steps=split_steps(solution),
        answer=answer.strip(),
    )


def _level(record: dict[str, Any], where: Path | str, line: int) -> int | None:
    """1-5 from a number, "3" or "Level 3"; None for null and "Level ?"."""
    if "level" not in record:
        raise ProblemError(f"{where}:{line}: no field 'level'; give 1-5, or null where it is not known")
    value = record["level"]
    if value is None or value == "Level ?":
        return None
    match = _LEVEL_TEXT.fullmatch(str(value).strip())
    if not match:
        raise ProblemError(f"{where}:{line}: level {value!r} is not 1-5; use null where it is not known")
    return int(match[1])


def refuse_repeats(problems: Iterable[Problem], where: str) -> None:
    """Every id is there once.

    Raises:
        ProblemError: one is not.
    """
    repeated = [name for name, count in Counter(p.problem_id for p in problems).items() if count > 1]
    if repeated:
        raise ProblemError(
            f"{where}: unique_id {repeated[0]} is there more than once; keep one record of each"
        )
