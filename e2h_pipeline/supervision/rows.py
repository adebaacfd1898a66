"""Shared by all labels of easy problems: rows, distinct samples, balance, graded answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.grading.verdicts import Gold, Grader, Verdict, decide

if TYPE_CHECKING:
    from e2h_pipeline.supervision.source import LabelJob

RIGHT, WRONG, UNLABELLED = 1.0, 0.0, -1.0
MOST_TO_ONE = 3
"""Paper C.1: right to wrong solutions of a problem between 1:3 and 3:1."""

Rows = list[dict[str, Any]]


def labelled_row(
    problem: dict[str, Any], sample: int, completion: str, labels: list[float], finished: bool
) -> dict[str, Any]:
    """A row of easy_step_labels: a completion of an easy problem, with a label per segment or
    none."""
    return {
        "problem_id": problem["problem_id"],
        "level": problem["level"],
        "sample": sample,
        "split": problem["split"],
        "question": problem["question"],
        "completion": completion,
        "labels": labels,
        "finished": finished,
    }


def distinct_samples(pool: Path, easy: Mapping[str, dict[str, Any]]) -> Rows:
    """The first sample of each distinct completion of each problem, as rows without labels."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for sample in read_table(pool, ["problem_id", "sample", "completion", "finish_reason"]).to_pylist():
        name, completion = sample["problem_id"], sample["completion"]
        finished = sample["finish_reason"] == "stop"
        seen.setdefault(
            (name, completion), labelled_row(easy[name], sample["sample"], completion, [], finished)
        )
    return in_order(seen.values())


def by_problem(rows: Iterable[dict[str, Any]]) -> dict[str, Rows]:
    """Rows by problem id, in order of id."""
    grouped: dict[str, Rows] = {}
    for row in rows:
        grouped.setdefault(row["problem_id"], []).append(row)
    return dict(sorted(grouped.items()))


def balanced(rows: Sequence[dict[str, Any]], is_right: Callable[[dict[str, Any]], bool], stream: str) -> Rows:
    """All of the rarer kind, and at most three of the other kind for each of them (paper C.1: 1:3
    to 3:1).

    If there is only one kind, one row stays. `stream` names the draw.
    """
    right = [row for row in rows if is_right(row)]
    wrong = [row for row in rows if not is_right(row)]
    fewer, more = sorted((right, wrong), key=len)
    most = max(1, MOST_TO_ONE * len(fewer))
    return [*fewer, *random.Random(stream).sample(more, min(len(more), most))]


def balanced_by_problem(rows: Rows, job: LabelJob) -> Rows:
    """Right and wrong solutions of each problem balanced where the source's options say so; a
    solution with a wrong step is wrong."""
    if not job.options.balance:
        return rows
    kept: Rows = []
    for problem_id, own in by_problem(rows).items():
        stream = f"{job.stream('labels')}/{job.work.seed}/{problem_id}"
        kept += balanced(own, lambda row: WRONG not in row["labels"], stream)
    return kept


def in_order(rows: Iterable[dict[str, Any]]) -> Rows:
    """Rows by problem, and within one by number of the sample."""
    return sorted(rows, key=lambda row: (row["problem_id"], row["sample"]))


def until_first_error(labels: Iterable[float]) -> list[float]:
    """Labels up to and including the first wrong step; what follows is not labelled."""
    kept: list[float] = []
    failed = False
    for label in labels:
        kept.append(UNLABELLED if failed else label)
        failed = failed or label == WRONG
    return kept


def grade_answers(
    judge: Grader,
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[str | None],
    easy: Mapping[str, Mapping[str, Any]],
) -> list[Verdict | None]:
    """The grader's verdict on the answer of each row to its easy problem (by `problem_id`); None
    without an answer.

    Each distinct pair is graded once, in an order that does not depend on the order of the rows.
    """
    pairs = [
        None if answer is None else (Gold.of_row(easy[row["problem_id"]]), answer)
        for row, answer in zip(rows, answers, strict=True)
    ]
    return decide(judge, pairs).verdicts


def write_solutions(out: Path, rows: Rows, labels: Sequence[tuple[str, Any]]) -> None:
    """Write `out/data.parquet`: solutions of easy problems, then the columns of their labels."""
    import pyarrow as pa

    solution = [
        ("problem_id", pa.string()),
        ("level", pa.int8()),
        ("sample", pa.int32()),
        ("split", pa.string()),
        ("question", pa.string()),
        ("completion", pa.string()),
    ]
    write_table(out / "data.parquet", pa.Table.from_pylist(rows, pa.schema([*solution, *labels])))
