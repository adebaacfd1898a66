"""Records of GSM8K, from a file or the Hub, as problems.

A record has `question` and `answer`. The answer is a solution, a step on each line, with notes for a
calculator (`48/2 = <<48/2=24>>24 clips`), and last `#### 24`. Notes and blank lines are left out. The
level is the number of steps, as Cobbe et al. 2021 (arXiv 2110.14168) count them: 2 to 8 lines, where
2 are easiest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from e2h_pipeline.problems.jsonl import field
from e2h_pipeline.problems.records import Problem, ProblemError

SUBJECT = "word problem"  # GSM8K has no subjects
_NOTE = re.compile(r"<<[^<>\n]*>>")
_ANSWER = "####"
_FEWEST, _MOST = 2, 6  # steps of level 1 (or fewer) and of level 5 (or more)


def problem_of_record(record: dict[str, Any], problem_id: str, where: Path | str, line: int) -> Problem:
    """A record as a problem.

    Args:
        where: file or data set, for errors.
        line: of the file, or row of the data set, for errors.

    Raises:
        ProblemError: a field is missing or cannot be used.
    """
    solution, _, answer = field(record, "answer", str, where, line).rpartition(_ANSWER)
    text = _NOTE.sub("", solution)
    steps = tuple(step.strip() for step in text.split("\n") if step.strip())
    if not steps or not answer.strip() or _ANSWER in text:
        raise ProblemError(
            f"{where}:{line}: 'answer' must be steps, a line each, and then one line '{_ANSWER} ANSWER'"
        )
    if "<<" in text or ">>" in text:
        raise ProblemError(f"{where}:{line}: 'answer' has a note << >> that does not close on its line")
    question = field(record, "question", str, where, line).strip()
    return Problem(problem_id, level_of(len(steps)), SUBJECT, question, steps, answer.strip())


def level_of(steps: int) -> int:
    """The level of a problem whose solution has so many steps."""
    return min(max(steps, _FEWEST), _MOST) - _FEWEST + 1
