"""Outcome labels on easy problems: supervision of the outcome reward model (paper 3.3, C.1).

Distinct samples of easy problems, right or wrong by their final answer alone. A sample that was cut
off or gives no answer is wrong; so is one with an answer that the grader gives up on. Right and
wrong solutions of each problem are balanced into [1:3, 3:1], as in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.lineage import LABELS_BOUGHT
from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.verdicts import Verdict
from e2h_pipeline.supervision.rows import (
    balanced,
    by_problem,
    distinct_samples,
    grade_answers,
    in_order,
    write_solutions,
)

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain

RIGHT, WRONG = 1, 0


def label_easy_outcomes(
    easy_samples: Path, easy_problems: Path, domain: Domain, grader_name: str, work: Work
) -> dict[str, Any]:
    """Write `data.parquet`: problem_id, level, sample, split, question, completion, finished,
    outcome (1 or 0).

    Args:
        easy_samples: folder of the tables of samples.
        domain: finds answers.
        grader_name: judges answers; its name in the registry.
        work: grades are kept in its folder until the artifact is made.

    Returns counts of what was written (`solutions`, `problems`, `right`, `wrong`), of the samples
    (`samples`, `repeated`, `unfinished`, `no_answer`, `undecided`), of solutions dropped by
    balancing (`dropped_for_balance`), of problems with only right or only wrong solutions,
    which keep one solution (`one_sided`), and of verdicts asked for, one for each distinct sample
    (`labels_bought`).
    """
    easy = {row["problem_id"]: row for row in read_table(easy_problems / TABLE).to_pylist()}
    samples = read_table(easy_samples, ["problem_id"]).num_rows
    distinct = distinct_samples(easy_samples, easy)
    answers = [domain.answer_of(row["completion"], row["finished"]) for row in distinct]
    with sharded_grader(grader_name, work.folder, work.runner, work.reporter) as judge:
        work.reporter.message(
            f"{len(distinct):,} distinct solutions of {samples:,} are graded by {judge.version}"
        )
        found = grade_answers(judge, distinct, answers, easy)
        version = judge.version
    labelled = [
        {**row, "outcome": RIGHT if verdict is Verdict.EQUAL else WRONG}
        for row, verdict in zip(distinct, found, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    one_sided = 0
    for problem_id, own in by_problem(labelled).items():
        one_sided += len({row["outcome"] for row in own}) == 1
        rows += balanced(own, lambda row: row["outcome"] == RIGHT, f"outcomes/{work.seed}/{problem_id}")
    rows = in_order(rows)
    _write(work.out, rows)
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "right": sum(row["outcome"] for row in rows),
        "wrong": sum(row["outcome"] == WRONG for row in rows),
        "samples": samples,
        "repeated": samples - len(distinct),
        "unfinished": sum(not row["finished"] for row in distinct),
        "no_answer": sum(
            row["finished"] and answer is None for row, answer in zip(distinct, answers, strict=True)
        ),
        "undecided": found.count(Verdict.UNDECIDED),
        "dropped_for_balance": len(labelled) - len(rows),
        "one_sided": one_sided,
        LABELS_BOUGHT: len(distinct),
        "grader": version,
    }


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    write_solutions(out, rows, [("finished", pa.bool_()), ("outcome", pa.int8())])
