"""Problem records and the three partitions of supervision (paper section 3).

Easy problems may show everything. Hard and benchmark problems show their question only. Their
answers live apart, in `gold_answers`, which only evaluation may read. Problems of unknown level are
neither easy nor hard. An easy problem whose text matches a hard or a benchmark problem is in no
part, nor is a hard one that matches a benchmark problem.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.duplicates import KeptOut, kept_out

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Problems


class ProblemError(ValueError):
    """A problem source that cannot be used; the message names file, line or field and the mend."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        level: from 1, easiest first; None where it is not known.
        steps: of the reference solution.
        answer: of the reference solution.
        payload: what a grader needs besides the answer, by name: unit tests, the entry point they
            call. It may give the answer away, so questions never carry it.
    """

    problem_id: str
    level: int | None
    subject: str
    question: str
    steps: tuple[str, ...]
    answer: str
    payload: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ProblemPool:
    """What a reader gives: a training pool and a benchmark, disjoint.

    Attributes:
        findings: what the reader left out and why (JSON), without answers.
        distinct: no question comes twice, so nobody needs to look for duplicates.
    """

    train: Sequence[Problem]
    benchmark: Sequence[Problem]
    findings: Mapping[str, Any] = field(default_factory=dict)
    distinct: bool = False


@dataclass(frozen=True)
class ProblemSplit:
    """The partitions of supervision. `easy_train` and `easy_validation` are disjoint.

    Attributes:
        kept_out: easy and hard problems that match one of another part, and so are in none.
    """

    easy_train: tuple[Problem, ...]
    easy_validation: tuple[Problem, ...]
    hard: tuple[Problem, ...]
    benchmark: tuple[Problem, ...]
    kept_out: tuple[KeptOut, ...] = ()


def split_by_supervision(pool: ProblemPool, options: Problems) -> ProblemSplit:
    """Part a pool by level; hold out easy validation and subsample by `options.seed`.

    Training problems of unknown level are in no part. Problems are kept out by their text before
    limits, so by all hard and benchmark problems of the source. Every draw is a shuffle seeded with
    (seed, what is drawn). So one limit leaves the other draws alone, and a raised limit keeps the
    problems drawn before.

    Raises:
        ProblemError: the hold-out leaves no easy problem.
    """
    known = [p for p in pool.train if p.level is not None]
    easy = [p for p in known if p.level in options.easy_levels]
    hard = [p for p in known if p.level not in options.easy_levels]
    out = {
        **kept_out("hard", hard, {"benchmark": pool.benchmark}),
        **kept_out("easy", easy, {"benchmark": pool.benchmark, "hard": hard}),
    }
    easy = [p for p in _draw(easy, None, options.seed, "easy") if p.problem_id not in out]
    hard = [p for p in _draw(hard, None, options.seed, "hard") if p.problem_id not in out]
    if options.validation >= len(easy):
        raise ProblemError(
            f"problems.validation={options.validation} leaves no easy problem to train on: there are {len(easy)}"
        )
    held_out, rest = easy[: options.validation], easy[options.validation :]
    return ProblemSplit(
        easy_train=tuple(_sorted(rest[: options.easy_limit])),
        easy_validation=tuple(_sorted(held_out)),
        hard=tuple(_sorted(hard[: options.hard_limit])),
        benchmark=tuple(
            _sorted(_draw(list(pool.benchmark), options.benchmark_limit, options.seed, "benchmark"))
        ),
        kept_out=tuple(out.values()),
    )


def _draw(problems: Sequence[Problem], limit: int | None, seed: int, what: str) -> list[Problem]:
    order = _sorted(problems)
    random.Random(f"{seed}/{what}").shuffle(order)
    return order[:limit]


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: p.problem_id)


def pool_table(pool: ProblemPool) -> pa.Table:
    """All problems of a pool with all that is known of them, and their `part`: train or benchmark."""
    import pyarrow as pa

    problems = [*pool.train, *pool.benchmark]
    part = ["train"] * len(pool.train) + ["benchmark"] * len(pool.benchmark)
    table = _with_steps(_questions(problems), problems).append_column("part", pa.array(part, pa.string()))
    return _with_payload(_with_answers(table, problems), problems)


def question_table(problems: Sequence[Problem], with_answers: bool = False) -> pa.Table:
    """Questions without anything that tells the answer: `problem_id`, `level`, `subject`,
    `question`.

    Args:
        with_answers: for controls alone: `answer` too, and `payload` where a problem has one.
    """
    table = _questions(problems)
    return _with_payload(_with_answers(table, problems), problems) if with_answers else table


def easy_table(split: ProblemSplit) -> pa.Table:
    """Easy problems as `question_table` has them, with `steps`, `answer`, their side of the
    train/validation line (`split`), and `payload` where a problem has one."""
    import pyarrow as pa

    problems = [*split.easy_train, *split.easy_validation]
    side = ["train"] * len(split.easy_train) + ["validation"] * len(split.easy_validation)
    table = _with_answers(_with_steps(_questions(problems), problems), problems)
    return _with_payload(table.append_column("split", pa.array(side, pa.string())), problems)


def gold_table(split: ProblemSplit) -> pa.Table:
    """Hard and benchmark problems (`part`) with their answers, and `payload` where a problem has
    one: for evaluation only."""
    import pyarrow as pa

    problems = [*split.hard, *split.benchmark]
    part = ["hard"] * len(split.hard) + ["benchmark"] * len(split.benchmark)
    table = _questions(problems).append_column("part", pa.array(part, pa.string()))
    return _with_payload(_with_answers(table, problems), problems)


def _questions(problems: Sequence[Problem]) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "problem_id": pa.array([p.problem_id for p in problems], pa.string()),
            "level": pa.array([p.level for p in problems], pa.int8()),
            "subject": pa.array([p.subject for p in problems], pa.string()),
            "question": pa.array([p.question for p in problems], pa.string()),
        }
    )


def _with_steps(table: pa.Table, problems: Sequence[Problem]) -> pa.Table:
    import pyarrow as pa

    return table.append_column("steps", pa.array([list(p.steps) for p in problems], pa.list_(pa.string())))


def _with_answers(table: pa.Table, problems: Sequence[Problem]) -> pa.Table:
    import pyarrow as pa

    return table.append_column("answer", pa.array([p.answer for p in problems], pa.string()))


def _with_payload(table: pa.Table, problems: Sequence[Problem]) -> pa.Table:
    """The table as it is where no problem has a payload."""
    import pyarrow as pa

    if not any(p.payload for p in problems):
        return table
    kind = pa.map_(pa.string(), pa.string())
    return table.append_column("payload", pa.array([dict(p.payload) for p in problems], kind))


def counts_by_level(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems each level has, as {"1": n, ...}; last those of no known level, as
    "unknown"."""
    counts = Counter(p.level for p in problems)
    unknown = counts.pop(None, 0)
    known = {str(level): counts[level] for level in sorted(level for level in counts if level is not None)}
    return {**known, "unknown": unknown} if unknown else known
