"""Step labels on easy problems, the supervision of the process reward model.

Where they come from is the recipe's `labels.source`: on the ladder an exact checker, on MATH the human
ratings of PRM800K or a file in Math-Shepherd's format, anywhere completions by the policy itself
(`monte_carlo`). Wherever they come from, labels stop at the first error (Lightman et al. 2023; paper
appendix L). Ratings of others are labelled once: the same step behind the same prefix of the same problem
has one label, in the first solution that comes with it (paper's code, which forgets the question).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.problems.jsonl import told_bad_lines
from e2h_pipeline.problems.label_files import read_labels
from e2h_pipeline.problems.labelled import (
    NEUTRAL_RATING,
    RIGHT_RATING,
    WRONG_RATING,
    by_question,
    problem_of,
    segments_of,
)
from e2h_pipeline.rewards.labelling import (
    RIGHT,
    UNLABELLED,
    WRONG,
    Rows,
    balanced,
    by_problem,
    distinct_samples,
    labelled_row,
    write_solutions,
)
from e2h_pipeline.solutions import SEPARATOR, parse_completion

if TYPE_CHECKING:
    from e2h_pipeline.artifacts.shards import Runner
    from e2h_pipeline.problems.labelled import LabelledSolution, LabelledSolutions
    from e2h_pipeline.recipe import Labels, Problems, Sampling
    from e2h_pipeline.reporter import Reporter

NEUTRAL = {"positive": RIGHT, "negative": WRONG, "soft": 0.5, "drop": UNLABELLED}
"""Label of a neutral rating by `labels.neutral`."""


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
        rows, details = _rated_labels(read_labels(options), easy, NEUTRAL[options.neutral])
    elif options.source == "monte_carlo":
        if policy is None or work is None or sampling is None:
            raise ValueError("labels.source=monte_carlo needs a policy, a work folder and sampling options")
        from e2h_pipeline.rewards.monte_carlo import monte_carlo_labels

        distinct = distinct_samples(easy_samples, easy)
        labelled, details = monte_carlo_labels(
            policy, distinct, easy, work, options, sampling, grader, seed, reporter, engine, runner
        )
        rows = _per_problem(labelled, options, seed)
    elif problems.source == "ladder":
        rows = _per_problem(_checked(distinct_samples(easy_samples, easy), easy), options, seed)
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


def _checked(samples: Rows, easy: Mapping[str, dict[str, Any]]) -> Rows:
    """Samples with the labels of the ladder's exact checker, where there is anything to label."""
    from e2h_pipeline.problems.ladder import step_labels

    labelled = [
        {
            **row,
            "labels": [float(x) for x in step_labels(easy[row["problem_id"]]["question"], row["completion"])],
        }
        for row in samples
    ]
    return [row for row in labelled if row["labels"]]


def _per_problem(rows: Rows, options: Labels, seed: int) -> Rows:
    """The rows, right and wrong solutions of each problem balanced where the recipe says so."""
    if not options.balance:
        return rows
    kept: Rows = []
    for problem_id, own in by_problem(rows).items():
        kept += balanced(own, lambda row: WRONG not in row["labels"], f"labels/{seed}/{problem_id}")
    return kept


# Ratings of others


def _rated_labels(
    found: LabelledSolutions, easy: Mapping[str, dict[str, Any]], neutral: float
) -> tuple[Rows, dict[str, Any]]:
    """Rated solutions of easy problems as rows; everything else is counted, not used.

    Problems are known by id, or by the text of their question where the data has no ids.
    """
    by_text = by_question(easy.values())
    meaning = {RIGHT_RATING: RIGHT, NEUTRAL_RATING: neutral, WRONG_RATING: WRONG, None: UNLABELLED}
    once = LabelOnce()
    rows: Rows = []
    dropped: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for solution in found.solutions:
        problem = problem_of(solution, easy, by_text)
        if problem is None:
            dropped[_why_unknown(solution)] += 1
            continue
        segments, shared = segments_of(solution.steps, [meaning[rating] for rating in solution.ratings])
        labels = once.new_labels(problem["problem_id"], segments, shared)
        if all(label == UNLABELLED for label in labels):
            dropped["no new label"] += 1
            continue
        completion = SEPARATOR.join(segments)
        finished = parse_completion(completion).answer is not None
        if not finished:  # or the step before the cut would be known as wrong by its missing end
            completion += SEPARATOR
        number = numbers[problem["problem_id"]]
        numbers[problem["problem_id"]] += 1
        rows.append(labelled_row(problem, number, completion, labels, finished))
    return rows, {
        "dropped": dict(dropped),
        "repeated_steps": once.repeated,
        "conflicting_steps": once.conflicting,
        "source_records": dict(found.counts),
        **told_bad_lines(found.bad_lines),
    }


def _why_unknown(solution: LabelledSolution) -> str:
    if solution.unique_id is not None and solution.level is None:
        return "level unknown"
    return "not an easy problem of this split"


class LabelOnce:
    """Labels that are given once: the first one of a step behind a prefix of a problem.

    Attributes:
        repeated: labels that were not given again.
        conflicting: of these, how many differ from the first.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, float] = {}
        self.repeated = self.conflicting = 0

    def new_labels(self, problem_id: str, segments: Sequence[str], labels: Sequence[float]) -> list[float]:
        """A label per segment: its own where it is the first there, else -1; none behind an error.

        What counts as an error is the first label, so that a solution which goes on behind a step that
        was first called wrong gets no more labels.
        """
        key, kept, failed = problem_id.encode(), [], False
        for segment, label in zip(segments, labels, strict=True):
            key = hashlib.sha256(key + b"\0" + segment.encode()).digest()
            first = self._first.get(key)
            kept.append(UNLABELLED if failed or first is not None else label)
            if not failed and label != UNLABELLED:
                self._first.setdefault(key, label)
                self.repeated += first is not None
                self.conflicting += first is not None and first != label
            failed = failed or (label if first is None else first) == WRONG
        return kept


def _write(out: Path, rows: Rows) -> None:
    import pyarrow as pa

    write_solutions(out, rows, [("labels", pa.list_(pa.float32())), ("finished", pa.bool_())])
