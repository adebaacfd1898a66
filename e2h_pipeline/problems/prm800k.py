"""Human step labels of PRM800K (Lightman et al. 2023), from the decoded records.

A record has one rating per step: 1 right, 0 neutral, -1 wrong, and ends at the first wrong step. Where a
solution reaches its answer, the answer block `# Answer\n\n...` is part of the last step (or is the last
step), as in PRM800K itself, so `SEPARATOR.join(steps)` is a completion in our format and its
last rating holds for the answer block too. Quality-control and screening problems were labelled
many times over; the first label of the same steps of the same problem stays, as in the paper's code.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import ProblemError

_PATTERN = "prm800k_human*.jsonl*"
_RATINGS = (-1, 0, 1)


@dataclass(frozen=True)
class LabelledSolution:
    """A solution, or its beginning up to the first wrong step, with one rating per step."""

    unique_id: str
    level: int | None
    steps: tuple[str, ...]
    ratings: tuple[int, ...]
    final_answer: str | None
    question: str


@dataclass(frozen=True)
class Prm800k:
    """The labels that stay, and what was dropped: `records` read, `repeated` (same problem and
    steps), and of these `conflicting` (with other ratings)."""

    solutions: tuple[LabelledSolution, ...]
    counts: Mapping[str, int]


def read_prm800k(path: Path | None = None) -> Prm800k:
    """Labels of one file, or of all `prm800k_human*.jsonl(.gz)` of a folder.

    Args:
        path: file or folder; $E2H_DATA_DIR/steps where None.

    Raises:
        ProblemError: no such data, or a record that cannot be used (names file and line).
    """
    kept: dict[tuple[str, tuple[str, ...]], LabelledSolution] = {}
    counts = Counter({"records": 0, "repeated": 0, "conflicting": 0})
    for file in _files(path):
        for line, record in read_jsonl(file):
            solution = _solution(record, file, line)
            first = kept.setdefault((solution.unique_id, solution.steps), solution)
            counts["records"] += 1
            counts["repeated"] += first is not solution
            counts["conflicting"] += first.ratings != solution.ratings
    return Prm800k(tuple(kept.values()), dict(counts))


def _files(path: Path | None) -> list[Path]:
    if path is None:
        data = os.environ.get("E2H_DATA_DIR")
        if not data:
            raise ProblemError(
                "no PRM800K labels: set labels.path to the file or its folder,"
                " or E2H_DATA_DIR to the folder above steps/"
            )
        path = Path(data) / "steps"
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(_PATTERN))
    if not files:
        raise ProblemError(
            f"{path}: no {_PATTERN}; set labels.path to the folder or file that has the labels"
        )
    return files


def _solution(record: dict[str, Any], path: Path, line: int) -> LabelledSolution:
    steps = _list_of(record, "steps", str, path, line)
    ratings = _list_of(record, "ratings", int, path, line)
    if not steps or len(steps) != len(ratings):
        raise ProblemError(
            f"{path}:{line}: {len(steps)} steps but {len(ratings)} ratings; there must be one for each"
        )
    if not set(ratings) <= set(_RATINGS):
        raise ProblemError(
            f"{path}:{line}: ratings must be -1, 0 or 1, not {sorted(set(ratings) - set(_RATINGS))}"
        )
    level, final_answer = record.get("level"), record.get("final_answer")
    if level is not None and level not in range(1, 6):
        raise ProblemError(f"{path}:{line}: level {level!r} is not 1-5; use null where it is not known")
    return LabelledSolution(
        unique_id=field(record, "unique_id", str, path, line),
        level=level,
        steps=tuple(steps),
        ratings=tuple(ratings),
        final_answer=None if final_answer is None else field(record, "final_answer", str, path, line),
        question=field(record, "problem", str, path, line),
    )


def _list_of(record: dict[str, Any], name: str, kind: type, path: Path, line: int) -> list[Any]:
    values = field(record, name, list, path, line)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise ProblemError(f"{path}:{line}: '{name}' must be a list of {kind.__name__}")
    return list(values)
