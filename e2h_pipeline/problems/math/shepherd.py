"""Step labels in the format of Math-Shepherd (Wang et al. 2024, arXiv 2312.08935).

A line has `input`, `label` and, if its author kept it, `task`. `input` is the question and the solution, `Step 1: ...
ки\\nStep 2: ...`, with the step tag `ки` behind every step; `label` is the same text with `+`
(right) or `-` (wrong) in place of each tag. The last step ends with `The answer is: ...`, which
becomes the answer block and shares the step's rating, as in the paper's code. `Step n:` is layout
and is removed.
"""

from __future__ import annotations

import re
from collections import Counter
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
from e2h_pipeline.solutions import ANSWER_MARKER, SEPARATOR

STEP_TAG = "ки"
_RATINGS = {"+": RIGHT_RATING, "-": WRONG_RATING}
_FIRST_STEP = "Step 1:"
_SENTENCE_ENDS = ".?!:;)]}$\"'\u201d\u2019\n"
_NUMBER = re.compile(r"Step \d+:\s*")
_ANSWER = re.compile(r"\s*The answer is:?\s*(.+?)\s*$", re.DOTALL)


def read_shepherd(path: Path) -> LabelledSolutions:
    """Labels of one .jsonl or .jsonl.gz file. `counts`: `records` that pass, and `task_...` for
    each task.

    Raises:
        ProblemError: no such file, a damaged one, or one of which no line passes.
    """
    counts = Counter({"records": 0})
    solutions: list[LabelledSolution] = []
    bad_lines: list[BadLine] = []
    for parsed in parse_each(path, _read):
        if isinstance(parsed, BadLine):
            bad_lines.append(parsed)
        else:
            solutions.append(parsed[0])
            counts.update(["records", f"task_{parsed[1]}"])
    return refuse_if_all_bad([path], LabelledSolutions(tuple(solutions), dict(counts), tuple(bad_lines)))


def _read(record: dict[str, Any], path: Path, line: int) -> tuple[LabelledSolution, str]:
    where = f"{path}:{line}"
    text, labelled = (field(record, name, str, path, line) for name in ("input", "label"))
    *pieces, rest = text.split(STEP_TAG)
    if not pieces:
        raise ProblemError(f"{where}: no step tag {STEP_TAG} in 'input'")
    if rest.strip():
        raise ProblemError(f"{where}: text behind the last step tag: {rest.strip()[:40]!r}")
    ratings = _ratings(pieces, labelled, where)
    question, marker, first = _parted(pieces[0])
    if not marker or not question.strip():
        raise ProblemError(f"{where}: no '{_FIRST_STEP}' between question and solution")
    for number, piece in enumerate(pieces[1:], start=2):
        if not _NUMBER.match(piece.strip()):
            raise ProblemError(f"{where}: step {number} does not begin with 'Step {number}:'")
    steps = [_NUMBER.sub("", piece.strip(), count=1) for piece in (marker + first, *pieces[1:])]
    if not all(steps):
        raise ProblemError(f"{where}: step {steps.index('') + 1} is empty")
    if any(ANSWER_MARKER in step for step in steps):
        raise ProblemError(f"{where}: '{ANSWER_MARKER}' within a step")
    steps[-1] = _answer_block(steps[-1])
    solution = LabelledSolution(
        path.name, line, None, None, question.strip(), tuple(steps), tuple(_RATINGS[r] for r in ratings)
    )
    return solution, "unknown" if record.get("task") is None else field(record, "task", str, path, line)


def _parted(piece: str) -> tuple[str, str, str]:
    """The question, `Step 1:`, and the first step.

    Both may speak of a step 1. The solution begins with the last `Step 1:` that begins a sentence,
    or with the last of all.
    """
    places = [match.start() for match in re.finditer(_FIRST_STEP, piece)]
    starts = [place for place in places if piece[:place].rstrip(" ").endswith(tuple(_SENTENCE_ENDS))]
    if not starts:
        return piece.rpartition(_FIRST_STEP)
    return piece[: starts[-1]], _FIRST_STEP, piece[starts[-1] + len(_FIRST_STEP) :]


def _ratings(pieces: list[str], labelled: str, where: str) -> str:
    """The sign in place of each tag; the rest must be equal in both texts."""
    signs, place = "", 0
    for number, piece in enumerate(pieces, start=1):
        end = place + len(piece)
        if labelled[place:end] != piece:
            raise ProblemError(f"{where}: 'label' differs from 'input' in step {number}")
        sign = labelled[end : end + 1]
        if sign not in _RATINGS:
            raise ProblemError(f"{where}: step {number} is labelled {sign!r}, not + or -")
        signs, place = signs + sign, end + 1
    if labelled[place:].strip():
        raise ProblemError(f"{where}: 'label' has text behind its last step")
    return signs


def _answer_block(step: str) -> str:
    """The last step with its closing sentence as an answer block; as it is where it has none."""
    found = _ANSWER.search(step)
    if found is None:
        return step
    body = step[: found.start()].rstrip()
    return SEPARATOR.join([*([body] if body else []), ANSWER_MARKER, found[1]])
