"""Step labels of PRMBench (Song et al. 2025): solutions in which a model planted errors.

Synthetic errors, for a control: an evaluator that learns from them may learn their style, and be
better on easy labels and worse on the errors that models make. Steps behind the first planted error
have no label. Of PRMBench's problems, only easy training problems are used; most are of MATH500.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2h_pipeline.problems.jsonl import BadLine, field, parse_each
from e2h_pipeline.problems.rated_solutions import (
    RIGHT_RATING,
    WRONG_RATING,
    LabelledSolution,
    LabelledSolutions,
    refuse_if_all_bad,
)
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.supervision.ratings import RatedFile

_NUMBER = ". "


class PrmBenchSource(RatedFile):
    """Labels of the modified solutions."""

    names = ("prmbench.jsonl", "prmbench.jsonl.gz")
    origin = "hitsmy/PRMBench_Preview on the Hub"

    def read_file(self, file: Path) -> LabelledSolutions:
        """See `RatedFile.read_file`."""
        bad_lines: list[BadLine] = []
        solutions: list[LabelledSolution] = []
        for parsed in parse_each(file, _read):
            if isinstance(parsed, BadLine):
                bad_lines.append(parsed)
            else:
                solutions.append(parsed)
        counts = {"records": len(solutions)}
        found = LabelledSolutions(tuple(solutions), counts, tuple(bad_lines))
        return refuse_if_all_bad([file], found)


def _read(record: dict[str, Any], path: Path, line: int) -> LabelledSolution:
    steps = field(record, "modified_process", list, path, line)
    errors = field(record, "error_steps", list, path, line)
    first = min(errors, default=len(steps) + 1)
    if not steps or not all(isinstance(step, str) for step in steps) or first < 1:
        raise ProblemError(f"{path}:{line}: modified_process needs texts, and error_steps numbers from 1")
    rated = steps[: int(first)]
    ratings = [WRONG_RATING if number == first else RIGHT_RATING for number in range(1, len(rated) + 1)]
    return LabelledSolution(
        file=path.name,
        line=line,
        unique_id=None,
        level=None,
        question=field(record, "modified_question", str, path, line),
        steps=tuple(_without_number(step, number) for number, step in enumerate(rated, start=1)),
        ratings=tuple(ratings),
    )


def _without_number(step: str, number: int) -> str:
    """`3. Then ...` is layout: a number in front of each step."""
    return step.removeprefix(f"{number}{_NUMBER}")
