"""Problem records and the three partitions of supervision (paper section 3).

Easy problems may show everything; hard and benchmark problems show their question; the answers of
those live apart, in `gold_answers`, which only evaluation may read.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Problems


class ProblemError(ValueError):
    """A problem source that cannot be used; the message names file, line or field and the mend."""


@dataclass(frozen=True)
class Problem:
    """One problem. `level` is 1-5; `steps` are the reference solution's steps, `answer` its answer."""

    problem_id: str
    level: int
    subject: str
    question: str
    steps: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class ProblemPool:
    """What a source gives: a training pool and a benchmark, disjoint, and what it found on the way."""

    train: Sequence[Problem]
    benchmark: Sequence[Problem]
    benchmark_name: str
    findings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProblemSplit:
    """The partitions of supervision. `easy_train` and `easy_validation` are disjoint."""

    easy_train: tuple[Problem, ...]
    easy_validation: tuple[Problem, ...]
    hard: tuple[Problem, ...]
    benchmark: tuple[Problem, ...]


def split_by_supervision(pool: ProblemPool, options: Problems) -> ProblemSplit:
    """Part a pool by level; hold out easy validation and subsample by `options.seed`.

    Every draw is by a shuffle seeded with (seed, what is drawn), so changing one limit leaves the
    other draws alone, and raising a limit keeps the problems drawn before.
    """
    easy = [p for p in pool.train if p.level in options.easy_levels]
    hard = [p for p in pool.train if p.level not in options.easy_levels]
    easy = _draw(easy, None, options.seed, "easy")
    if options.validation >= len(easy):
        raise ProblemError(
            f"problems.validation={options.validation} leaves no easy problem to train on: there are {len(easy)}"
        )
    held_out, rest = easy[: options.validation], easy[options.validation :]
    return ProblemSplit(
        easy_train=tuple(_sorted(rest[: options.easy_limit])),
        easy_validation=tuple(_sorted(held_out)),
        hard=tuple(_sorted(_draw(hard, options.hard_limit, options.seed, "hard"))),
        benchmark=tuple(
            _sorted(_draw(list(pool.benchmark), options.benchmark_limit, options.seed, "benchmark"))
        ),
    )


def _draw(problems: Sequence[Problem], limit: int | None, seed: int, what: str) -> list[Problem]:
    order = _sorted(problems)
    random.Random(f"{seed}/{what}").shuffle(order)
    return order[:limit]


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: p.problem_id)


def question_table(problems: Sequence[Problem], with_answers: bool = False) -> pa.Table:
    """Questions without anything that tells the answer; with it in controls alone."""
    import pyarrow as pa

    table = pa.table(
        {
            "problem_id": pa.array([p.problem_id for p in problems], pa.string()),
            "level": pa.array([p.level for p in problems], pa.int8()),
            "subject": pa.array([p.subject for p in problems], pa.string()),
            "question": pa.array([p.question for p in problems], pa.string()),
        }
    )
    answers = pa.array([p.answer for p in problems], pa.string())
    return table.append_column("answer", answers) if with_answers else table


def easy_table(split: ProblemSplit) -> pa.Table:
    """Easy problems with solution, answer and their side of the train/validation line."""
    import pyarrow as pa

    problems = [*split.easy_train, *split.easy_validation]
    side = ["train"] * len(split.easy_train) + ["validation"] * len(split.easy_validation)
    return (
        question_table(problems)
        .append_column("steps", pa.array([list(p.steps) for p in problems], pa.list_(pa.string())))
        .append_column("answer", pa.array([p.answer for p in problems], pa.string()))
        .append_column("split", pa.array(side, pa.string()))
    )


def gold_table(split: ProblemSplit) -> pa.Table:
    """Answers of hard and benchmark problems: for evaluation only."""
    import pyarrow as pa

    problems = [*split.hard, *split.benchmark]
    part = ["hard"] * len(split.hard) + ["benchmark"] * len(split.benchmark)
    return (
        question_table(problems)
        .append_column("part", pa.array(part, pa.string()))
        .append_column("answer", pa.array([p.answer for p in problems], pa.string()))
    )


def counts_by_level(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems each level has, as {"1": n, ...}."""
    counts = Counter(p.level for p in problems)
    return {str(level): counts[level] for level in sorted(counts)}
