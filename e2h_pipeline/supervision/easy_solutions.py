"""Solutions of easy problems for fine-tuning the policy (paper section 3.2, appendix C.1).

All sources give the same table. Solutions from files are used for easy training problems only,
matched by id and by text. Those of validation, hard and benchmark problems are left out and
counted, and so are rewritten questions that are a held-out question or a rewording of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import TABLE, read_table, write_table
from e2h_pipeline.problems.duplicates import templates
from e2h_pipeline.problems.jsonl import told_bad_lines
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import KnownQuestions
from e2h_pipeline.registry import SOLUTION_SOURCES
from e2h_pipeline.supervision.solutions.source import DrawnSolutions, SolutionJob, SolutionSource

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Solutions


_SHOWN = 20


def write_easy_solutions(
    easy_problems: Path,
    held_out: Sequence[Path],
    options: Solutions,
    domain: Domain,
    seed: int,
    work: Work,
) -> dict[str, Any]:
    """Write `data.parquet`: problem_id, level (null where there is none), source, question, completion,
    `learned` (one flag per segment of the completion), finished.

    Args:
        easy_problems: the easy problems; solutions of their validation part are not taken.
        held_out: tables of held-out questions; read only for solutions from files.
        domain: of the problems; it defines the format of completions.
        seed: of the draw where there are more solutions than wanted.

    Returns counts: `solutions`, `problems`, `learned_steps`, and by `level` and `source`; for
    solutions from files also `dropped` (left out, by reason), `bad_lines` and a description of the
    first, and `like_held_out`: rewritten questions of one template with a hard or benchmark
    question.

    Raises:
        ProblemError: a file cannot be used, or no solution is of an easy training problem.
    """
    easy = read_table(easy_problems / TABLE).to_pylist()
    train = [row for row in easy if row["split"] == "train"]
    apart = [row for row in easy if row["split"] != "train"]
    for folder in held_out:
        apart += read_table(folder / TABLE, ["problem_id", "question"]).to_pylist()
    source: SolutionSource = SOLUTION_SOURCES.load(options.source)()
    known = KnownQuestions((row["problem_id"], row["question"]) for row in apart)
    own = {row["problem_id"]: row["question"] for row in train}
    job = SolutionJob(options, train, known, domain.text, seed, domain.unlevelled_easy)
    drawn = _admitted(source.draw(job), own, apart)
    details: dict[str, Any] = {}
    if options.from_files:
        _require_some(drawn, source.files(options))
        near = _like_hidden(drawn.rows, own, apart)
        details = {"dropped": dict(drawn.dropped), **near, **told_bad_lines(drawn.bad_lines)}
    write_table(work.out / TABLE, solution_table(drawn.rows))
    return {**_counted(drawn.rows), **details}


def _admitted(
    drawn: DrawnSolutions, own: Mapping[str, str], apart: Sequence[Mapping[str, Any]]
) -> DrawnSolutions:
    """The solutions without those of held-out problems, by id and by text, whatever their source.

    A training problem in its own words may resemble a validation problem: both are easy.

    Args:
        own: question of each easy training problem by id.
        apart: held-out problems; those with a `split` are easy.
    """
    ids = {row["problem_id"] for row in apart}
    every, hidden = (
        KnownQuestions((row["problem_id"], row["question"]) for row in rows)
        for rows in (apart, [row for row in apart if "split" not in row])
    )
    dropped = Counter(drawn.dropped)
    kept = []
    for row in drawn.rows:
        in_its_words = row["question"] == own.get(row["problem_id"])
        match = (hidden if in_its_words else every).find(row["question"])
        if row["problem_id"] in ids:
            dropped["the id of a problem that is held out"] += 1
        elif match is not None:
            dropped[f"{match.kind} as a question that is held out"] += 1
        else:
            kept.append(row)
    return DrawnSolutions(kept, dropped, drawn.bad_lines)


def _like_hidden(
    rows: Sequence[Mapping[str, Any]], own: Mapping[str, str], apart: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Rewritten questions of one template with a hard or benchmark question: they train, and people
    should look at them. Empty where there are none."""
    rewritten = {
        row["question"]: row["problem_id"] for row in rows if row["question"] != own.get(row["problem_id"])
    }
    hidden = [(row["problem_id"], row["question"]) for row in apart if "split" not in row]
    found = templates(hidden, [(name, question) for question, name in rewritten.items()])
    if not found:
        return {}
    return {"like_held_out": len(found), "first_like_held_out": [str(pair) for pair in found[:_SHOWN]]}


def solution_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as the table of `easy_solutions`."""
    import pyarrow as pa

    types = {
        "problem_id": pa.string(),
        "level": pa.int8(),
        "source": pa.string(),
        "question": pa.string(),
        "completion": pa.string(),
        "learned": pa.list_(pa.bool_()),
        "finished": pa.bool_(),
    }
    return pa.Table.from_pylist(list(rows), pa.schema(types))


def _require_some(drawn: DrawnSolutions, files: Sequence[Path]) -> None:
    if drawn.rows:
        return
    bad = drawn.bad_lines
    why = f"; the first of {len(bad)} bad lines: {bad[0]}" if bad else f"; left out: {dict(drawn.dropped)}"
    raise ProblemError(
        f"{', '.join(map(str, files))}: no solution of an easy training problem{why};"
        " set solutions.path to a file of the format that solutions.source names"
    )


def _counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "learned_steps": sum(sum(row["learned"]) for row in rows),
        "by_level": _tally(str(row["level"] or "none") for row in rows),
        "by_source": _tally(row["source"] for row in rows),
    }


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
