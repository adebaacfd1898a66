"""Human step labels of PRM800K (Lightman et al. 2023), as published and as decoded records.

A published line (`phase1_train.jsonl`, `phase2_train.jsonl`) is one labelling session: for each
step the completions that were shown, each rated 1 right, 0 neutral, -1 wrong or not at all, and
which of them was chosen to go on from (or a step the labeller wrote, which has no rating). It
becomes several solutions: the chosen path, and for each rated completion that was not chosen the
path so far with that completion in the end, so that every rated completion is the last step of some
prefix (paper's code, prepare_prm800k_rm). Quality-control and screening sessions are kept, as in
the paper's code, and counted.

A decoded record has one rating per step, `unique_id` and `level`. Where a solution reaches its
answer, the answer block `# Answer\\n\\n...` is part of the last step (or is the last step), so that
`SEPARATOR.join(steps)` is a completion in our format and its last rating holds for the answer too.

The same problem and prefix may come many times; `e2h_pipeline/supervision/once.py` labels them
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from e2h_pipeline.problems.files import data_folder
from e2h_pipeline.problems.jsonl import BadLine, field, parse_each
from e2h_pipeline.problems.rated_solutions import (
    NEUTRAL_RATING,
    RIGHT_RATING,
    WRONG_RATING,
    LabelledSolution,
    LabelledSolutions,
    refuse_if_all_bad,
)
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import ANSWER_MARKER, MARKED, SEPARATOR

_PATTERNS = ("prm800k_human*.jsonl*", "phase[12]_train.jsonl*")
_RATINGS = (WRONG_RATING, NEUTRAL_RATING, RIGHT_RATING)
_MARKERS = {"is_quality_control_question": "quality_control", "is_initial_screening_question": "screening"}
_Rated = tuple[str, int | None]


def read_prm800k(path: Path | None = None) -> LabelledSolutions:
    """Labels of one file, or of all `prm800k_human*` and `phase[12]_train` files of a folder.

    `counts`: `records` (lines that pass), and of these `quality_control`, `screening` and, by how
    the session ended, `finish_solution`, `finish_found_error`, `finish_bad_problem`,
    `finish_give_up`.

    Args:
        path: file or folder of .jsonl or .jsonl.gz; $E2H_DATA_DIR/steps where None.

    Raises:
        ProblemError: no such data, a damaged file, or one of which no line passes.
    """
    files = prm800k_files(path)
    counts = Counter({"records": 0})
    solutions: list[LabelledSolution] = []
    bad_lines: list[BadLine] = []
    for file in files:
        for parsed in parse_each(file, _read):
            if isinstance(parsed, BadLine):
                bad_lines.append(parsed)
            else:
                counts.update(["records", *parsed[1]])
                solutions += parsed[0]
    return refuse_if_all_bad(files, LabelledSolutions(tuple(solutions), dict(counts), tuple(bad_lines)))


def prm800k_files(path: Path | None = None, setting: str = "labels.path") -> list[Path]:
    """The files that `read_prm800k` reads.

    Args:
        setting: field of the recipe that says where they are, for errors.

    Raises:
        ProblemError: no such data.
    """
    if path is None:
        path = data_folder("steps")
        if path is None:
            raise ProblemError(
                f"no PRM800K labels: set {setting} to the file or its folder,"
                " or E2H_DATA_DIR to the folder above steps/"
            )
    if not path.is_dir():
        return [path]
    files = sorted(file for pattern in _PATTERNS for file in path.glob(pattern))
    if not files:
        raise ProblemError(
            f"{path}: no {' or '.join(_PATTERNS)}; set {setting} to the folder or file that has the labels"
        )
    return files


def _read(record: dict[str, Any], path: Path, line: int) -> tuple[list[LabelledSolution], list[str]]:
    """The solutions of a line of either form, and what it counts as."""
    if "label" not in record:
        return [_decoded(record, path, line)], []
    found = [name for mark, name in _MARKERS.items() if record.get(mark) is True]
    reason = field(record, "label", dict, path, line).get("finish_reason")
    return _session(record, path, line), [*found, f"finish_{reason}"]


def session_solutions(record: dict[str, Any], path: Path, line: int) -> list[LabelledSolution]:
    """The solutions of a line that is a labelling session, as PRM800K publishes them.

    Raises:
        ProblemError: it is none.
    """
    field(record, "label", dict, path, line)
    return _session(record, path, line)


def _decoded(record: dict[str, Any], path: Path, line: int) -> LabelledSolution:
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
    level = record.get("level")
    if level is not None and level not in range(1, 6):
        raise ProblemError(f"{path}:{line}: level {level!r} is not 1-5; use null where it is not known")
    if record.get("final_answer") is not None:
        told = field(record, "final_answer", str, path, line)
        written = MARKED.parse(SEPARATOR.join(steps)).answer
        if told.strip() != written:
            raise ProblemError(f"{path}:{line}: final_answer is {told!r}, but the steps end in {written!r}")
    solution = LabelledSolution(
        file=path.name,
        line=line,
        unique_id=field(record, "unique_id", str, path, line),
        level=level,
        question=field(record, "problem", str, path, line),
        steps=tuple(steps),
        ratings=tuple(ratings),
    )
    return _checked(solution, path)


def _session(record: dict[str, Any], path: Path, line: int) -> list[LabelledSolution]:
    """The chosen path up to its last rated step, and the alternatives to it, longest first.

    The chosen path is left out where an alternative begins with it.
    """
    question = field(field(record, "question", dict, path, line), "problem", str, path, line)
    chosen: list[_Rated] = []
    alternatives: list[list[_Rated]] = []
    ended = False
    for number, step in enumerate(field(record["label"], "steps", list, path, line), start=1):
        if ended:
            raise ProblemError(f"{path}:{line}: step {number} follows a step where nothing was chosen")
        next_step, others = _step(step, f"{path}:{line}: step {number}")
        alternatives += [[*chosen, other] for other in others if other[1] is not None]
        ended = next_step is None
        chosen += [] if next_step is None else [next_step]
    while chosen and chosen[-1][1] is None:
        chosen.pop()
    contained = not chosen or any(other[: len(chosen)] == chosen for other in alternatives)
    branches = sorted([*([] if contained else [chosen]), *alternatives], key=len, reverse=True)
    whole = LabelledSolution(path.name, line, None, None, question, (), ())
    return [
        _checked(replace(whole, steps=tuple(t for t, _ in rated), ratings=tuple(r for _, r in rated)), path)
        for rated in branches
    ]


def _step(step: Any, where: str) -> tuple[_Rated | None, list[_Rated]]:
    """The step to go on from (None where the session ends here), and the completions that were not
    chosen."""
    if not isinstance(step, dict):
        raise ProblemError(f"{where} must be an object, not {type(step).__name__}")
    shown = step.get("completions") or []
    if not isinstance(shown, list):
        raise ProblemError(f"{where}: 'completions' must be a list, not {type(shown).__name__}")
    completions = [_completion(each, where) for each in shown]
    index, human = step.get("chosen_completion"), step.get("human_completion")
    if index is not None:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(completions):
            raise ProblemError(f"{where}: chosen_completion {index!r} is none of {len(completions)}")
        return completions[index], [c for i, c in enumerate(completions) if i != index]
    return None if human is None else (_completion(human, where)[0], None), completions


def _completion(value: Any, where: str) -> _Rated:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str) or not value["text"].strip():
        raise ProblemError(f"{where}: a completion must be an object with a 'text'")
    rating = value.get("rating")
    if rating is not None and (isinstance(rating, bool) or rating not in _RATINGS):
        raise ProblemError(f"{where}: rating must be -1, 0, 1 or null, not {rating!r}")
    return value["text"], None if rating is None else int(rating)


def _checked(solution: LabelledSolution, path: Path) -> LabelledSolution:
    """The solution, if its answer block, where it has one, is its end."""
    if any(ANSWER_MARKER in step for step in solution.steps[:-1]):
        raise ProblemError(f"{path}:{solution.line}: a step follows the answer")
    if solution.steps and solution.steps[-1].count(ANSWER_MARKER) > 1:
        raise ProblemError(f"{path}:{solution.line}: a step has more than one {ANSWER_MARKER}")
    return solution


def _list_of(record: dict[str, Any], name: str, kind: type, path: Path, line: int) -> Sequence[Any]:
    values = field(record, name, list, path, line)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise ProblemError(f"{path}:{line}: '{name}' must be a list of {kind.__name__}")
    return list(values)
