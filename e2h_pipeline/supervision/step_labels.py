"""Step labels on easy problems, the supervision of the process reward model.

Where they come from is the recipe's `labels.source`: on the ladder an exact checker, on MATH the human
ratings of PRM800K or a file in Math-Shepherd's format, anywhere completions by the policy itself
(`monte_carlo`). Wherever they come from, labels stop at the first error (Lightman et al. 2023; paper
appendix L). Ratings of others are labelled once: the same step behind the same prefix of the same problem
has one label, in the first solution that comes with it (paper's code, which forgets the question).
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.problems.supplied_files import read_labels
from e2h_pipeline.supervision.exact_checker import checked_labels
from e2h_pipeline.supervision.ratings import NEUTRAL, rated_labels
from e2h_pipeline.supervision.rows import (
    RIGHT,
    UNLABELLED,
    WRONG,
    Rows,
    balanced,
    by_problem,
    distinct_samples,
    write_solutions,
)

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.artifacts.shards import Runner
    from e2h_pipeline.recipe import Labels, Problems, Sampling


def label_easy_samples(
    easy_samples: Path,
    easy_problems: Path,
    out: Path,
    options: Labels,
    problems: Problems,
    seed: int,
    reporter: Reporter,
    *,
    policy: Path | None = None,
    work: Path | None = None,
    sampling: Sampling | None = None,
    grader: str = "exact",
    engine: str = "transformers",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Write `out/data.parquet`: completions of easy problems with one label per segment.

    A label is 1 (right), 0 (wrong), between the two (soft), or -1 where there is none.

    Args:
        policy, work, sampling, grader, engine, runner: for `monte_carlo`: what draws completions, a folder for
            resumable work, how they are drawn, what tells that an answer is right, and who does it.

    Returns counts: `solutions`, `problems`, steps by label, and `dropped`, what was left out and why; for
    files of labels `source_records`, `bad_lines` and the first of these in words.

    Raises:
        ValueError: the recipe asks for the checker where the problem source has none, for a file without
            a path, or for Monte-Carlo labels without samples or a policy.
        ProblemError: a file of labels that cannot be used.
    """
    easy = {row["problem_id"]: row for row in read_table(easy_problems / "data.parquet").to_pylist()}
    details: dict[str, Any] = {"dropped": {}}
    if options.source in ("prm800k", "shepherd"):
        rows, details = rated_labels(read_labels(options), easy, NEUTRAL[options.neutral])
    elif options.source == "monte_carlo":
        if policy is None or work is None or sampling is None:
            raise ValueError("labels.source=monte_carlo needs a policy, a work folder and sampling options")
        from e2h_pipeline.supervision.monte_carlo import monte_carlo_labels

        distinct = distinct_samples(easy_samples, easy)
        labelled, details = monte_carlo_labels(
            policy, distinct, easy, work, options, sampling, grader, seed, reporter, engine, runner
        )
        rows = _per_problem(labelled, options, seed)
    elif problems.source == "ladder":
        rows = _per_problem(checked_labels(distinct_samples(easy_samples, easy), easy), options, seed)
    else:
        raise ValueError(
            "labels.source=checker needs the ladder; on MATH use labels.source=prm800k, shepherd or monte_carlo"
        )
    rows.sort(key=lambda row: (row["problem_id"], row["sample"]))
    if options.limit is not None:
        rows = sorted(
            random.Random(f"labels/{seed}").sample(rows, min(options.limit, len(rows))),
            key=lambda row: (row["problem_id"], row["sample"]),
        )
    _write(out, rows)
    return {**_counted(rows), **details}


def _counted(rows: Rows) -> dict[str, int]:
    labels = Counter(label for row in rows for label in row["labels"])
    return {
        "solutions": len(rows),
        "problems": len({row["problem_id"] for row in rows}),
        "right_steps": labels[RIGHT],
        "wrong_steps": labels[WRONG],
        "soft_steps": sum(count for label, count in labels.items() if WRONG < label < RIGHT),
        "unlabelled_steps": labels[UNLABELLED],
    }


# Samples of our own policy


def _per_problem(rows: Rows, options: Labels, seed: int) -> Rows:
    """The rows, right and wrong solutions of each problem balanced where the recipe says so."""
    if not options.balance:
        return rows
    kept: Rows = []
    for problem_id, own in by_problem(rows).items():
        kept += balanced(own, lambda row: WRONG not in row["labels"], f"labels/{seed}/{problem_id}")
    return kept


# Ratings of others


def _write(out: Path, rows: Rows) -> None:
    import pyarrow as pa

    write_solutions(out, rows, [("labels", pa.list_(pa.float32())), ("finished", pa.bool_())])
