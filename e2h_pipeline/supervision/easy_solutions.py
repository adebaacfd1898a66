"""Solutions of easy problems that the policy is taught (paper section 3.2, appendix C.1): one table, whoever wrote them.

`reference`: those that come with the problems. `prm800k`: solutions that people rated, of which the steps rated
right are learned and the others are only read (paper's code, prepare_prm800k_sft: an example for each such step; here a
solution is one example with a loss on all of them, and nothing behind a wrong step). `metamath`: model-written
solutions of rewritten problems of MATH, and of all of GSM8K, which has no levels and counts as easy (paper).

Others' solutions are of easy training problems only, by id or by the text of the question they were made of: what is
held out for validation, hard or benchmark is left out and counted, and so is a rewritten question that is one of these.
MATH has a few texts twice, at an easy and a hard level: by its text, such a problem is held out.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.hashing import digest_json
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.problems.duplicates import spacing_key
from e2h_pipeline.problems.jsonl import BadLine, told_bad_lines
from e2h_pipeline.problems.math.metamath import MATH, RewrittenSolution, read_metamath
from e2h_pipeline.problems.rated_solutions import RIGHT_RATING, WRONG_RATING, LabelledSolutions
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import SEPARATOR, format_completion, parse_completion
from e2h_pipeline.supervision.matching import by_question, problem_of, segments_of

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Solutions

Rows = list[dict[str, Any]]
GSM8K_ID = "gsm8k/"
"""How ids of problems of GSM8K begin; they are made of the text, for GSM8K has none."""


def write_easy_solutions(
    easy_problems: Path, held_out: Sequence[Path], out: Path, options: Solutions, seed: int
) -> dict[str, Any]:
    """Write `out/data.parquet`: problem_id, level (null for GSM8K), source, question, completion, `learned` (one flag per
    segment of the completion), finished.

    Args:
        easy_problems: the easy problems; solutions of their validation part are not taken.
        held_out: tables of questions that nothing may be learned from; read where solutions are others'.
        seed: of the draw where there are more than `per_question`.

    Returns counts: `solutions`, `problems`, `learned_steps`, and by `level` and `source`; where solutions are others',
    `dropped` (what was left out and why), `bad_lines` and the first of them in words.

    Raises:
        ProblemError: a file that cannot be used, or of which no solution is of an easy training problem.
    """
    easy = read_table(easy_problems / "data.parquet").to_pylist()
    details: dict[str, Any] = {}
    if options.source == "reference":
        rows = reference_solutions(easy)
    else:
        questions = [row["question"] for row in easy if row["split"] != "train"]
        for folder in held_out:
            questions += read_table(folder / "data.parquet", ["question"])["question"].to_pylist()
        apart = {spacing_key(question) for question in questions}
        rows, details = _of_others([row for row in easy if row["split"] == "train"], apart, options, seed)
    write_table(out / "data.parquet", solution_table(rows))
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "learned_steps": sum(sum(row["learned"]) for row in rows),
        "by_level": _counts(str(row["level"] or "none") for row in rows),
        "by_source": _counts(row["source"] for row in rows),
        **details,
    }


def reference_solutions(easy: Iterable[Mapping[str, Any]]) -> Rows:
    """The solutions that come with easy training problems, as rows."""
    return [
        _row(
            problem, "reference", problem["question"], format_completion(problem["steps"], problem["answer"])
        )
        for problem in easy
        if problem["split"] == "train"
    ]


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


def _row(
    problem: Mapping[str, Any],
    source: str,
    question: str,
    completion: str,
    learned: Sequence[bool] | None = None,
    finished: bool = True,
) -> dict[str, Any]:
    return {
        "problem_id": problem["problem_id"],
        "level": problem["level"],
        "source": source,
        "question": question,
        "completion": completion,
        "learned": [True] * len(parse_completion(completion).spans) if learned is None else list(learned),
        "finished": finished,
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _of_others(
    train: Sequence[dict[str, Any]], apart: set[str], options: Solutions, seed: int
) -> tuple[Rows, dict[str, Any]]:
    from e2h_pipeline.problems.math.prm800k import read_prm800k
    from e2h_pipeline.problems.solution_files import solution_files

    files = solution_files(options)
    by_text = {text: problem for text, problem in by_question(train).items() if text not in apart}
    dropped: Counter[str] = Counter()
    bad: list[BadLine] = []
    if options.source == "prm800k":
        found = read_prm800k(Path(options.path) if options.path else None)
        bad += found.bad_lines
        by_id = {problem["problem_id"]: problem for problem in train}
        rows = list(_rated_right(found, by_id, by_text, dropped))
    else:
        rewritten = _without_bad_lines(read_metamath(files[0]), bad)
        rows = list(_rewritten(rewritten, by_text, apart, dropped))
        rows = _at_most(rows, options.per_question, seed, dropped)
    if not rows:
        why = f"; the first of {len(bad)} bad lines: {bad[0]}" if bad else f"; left out: {dict(dropped)}"
        raise ProblemError(
            f"{', '.join(map(str, files))}: no solution of an easy training problem{why};"
            " set solutions.path to a file of the format that solutions.source names"
        )
    return rows, {"dropped": dict(dropped), **told_bad_lines(bad)}


def _rated_right(
    found: LabelledSolutions,
    by_id: Mapping[str, dict[str, Any]],
    by_text: Mapping[str, dict[str, Any]],
    dropped: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Solutions up to their last step that is rated right and has not been learned before behind the same steps."""
    known: set[tuple[str, ...]] = set()
    for solution in found.solutions:
        problem = problem_of(solution, by_id, by_text)
        if problem is None:
            dropped["not an easy training problem"] += 1
            continue
        segments, ratings = segments_of(solution.steps, solution.ratings)
        learned, last = [], 0
        for place, rating in enumerate(ratings, start=1):
            if rating == WRONG_RATING:
                break
            beginning = (problem["problem_id"], *segments[:place])
            learned.append(rating == RIGHT_RATING and beginning not in known)
            if learned[-1]:
                known.add(beginning)
                last = place
        if not last:
            dropped["no new right step"] += 1
            continue
        completion = SEPARATOR.join(segments[:last])
        finished = parse_completion(completion).answer is not None
        yield _row(
            problem,
            "prm800k",
            problem["question"],
            completion if finished else completion + SEPARATOR,
            learned[:last],
            finished,
        )


def _without_bad_lines(
    found: Iterable[RewrittenSolution | BadLine], bad: list[BadLine]
) -> Iterator[RewrittenSolution]:
    for each in found:
        if isinstance(each, BadLine):
            bad.append(each)
        else:
            yield each


def _rewritten(
    found: Iterable[RewrittenSolution],
    by_text: Mapping[str, dict[str, Any]],
    apart: set[str],
    dropped: Counter[str],
) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for each in found:
        original, question = spacing_key(each.original_question), spacing_key(each.question)
        problem = by_text.get(original)
        if problem is None and each.origin != MATH and original not in apart:
            problem = {"problem_id": GSM8K_ID + digest_json(original)[:16], "level": None}
        if problem is None:
            dropped["not an easy training problem"] += 1
        elif question in apart:
            dropped["rewritten as a question that is held out"] += 1
        else:
            row = _row(problem, each.kind, each.question, format_completion(each.steps, each.answer))
            same = digest_json([row["question"], row["completion"]])
            if same in seen:
                dropped["there already"] += 1
                continue
            seen.add(same)
            yield row


def _at_most(rows: Rows, most: int | None, seed: int, dropped: Counter[str]) -> Rows:
    """At most so many solutions of each question, in the order they came in."""
    if most is None:
        return rows
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row["question"]].append(place)
    kept: list[int] = []
    for question, own in places.items():
        drawn = random.Random(f"solutions/{seed}/{question}").sample(own, min(most, len(own)))
        dropped["more of a question than wanted"] += len(own) - len(drawn)
        kept += drawn
    return [rows[place] for place in sorted(kept)]
