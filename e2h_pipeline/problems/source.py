"""The problems of a recipe, whichever domain they are of: pool, split, fingerprint, description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.files import SourceState, look_at_files
from e2h_pipeline.problems.records import (
    Problem,
    ProblemError,
    ProblemPool,
    ProblemSplit,
    counts_by_level,
    split_by_supervision,
)
from e2h_pipeline.registry import DOMAINS, PROBLEM_READERS

if TYPE_CHECKING:
    from e2h_pipeline.problems.domain import ProblemReader
    from e2h_pipeline.recipe import Problems


def look_at_source(options: Problems) -> SourceState:
    """The state of a source. The Hub is asked for commits only."""
    reader = _reader(options)
    return look_at_files(
        lambda: reader.files(options),
        lambda: source_fingerprint(options),
        lambda: load_pool(options),
        f"problems {options.model_dump_json()}",
    )


def _reader(options: Problems) -> ProblemReader:
    reader: ProblemReader = PROBLEM_READERS.load(options.source)()
    return reader


def source_files(options: Problems) -> list[Path]:
    """The local files of the source."""
    return list(_reader(options).files(options))


def load_pool(options: Problems) -> ProblemPool:
    """All problems of the recipe's source, before the split.

    Raises:
        ProblemError: they cannot be read, or one is of a level that the domain does not have.
    """
    pool = _reader(options).pool(options)
    for problem in (*pool.train, *pool.benchmark):
        if problem.level is not None and problem.level not in options.levels:
            raise ProblemError(
                f"problem {problem.problem_id} is of level {problem.level}, but {options.source} has the levels "
                f"{', '.join(map(str, options.levels))}; mend the level, or use null where it is not known"
            )
    return pool


def load_split(options: Problems) -> ProblemSplit:
    """The partitions of supervision of the recipe's source."""
    return split_by_supervision(load_pool(options), options)


def source_fingerprint(options: Problems) -> dict[str, str]:
    """What the source is made of: file name to SHA-256, Hub data set to commit, or a generator's
    name.

    It enters the key of `problem_source`, so that a changed file is a changed artifact.
    """
    return dict(_reader(options).fingerprint(options))


def describe_source(options: Problems, pool: ProblemPool) -> dict[str, Any]:
    """Counts by level and what was found on the way (duplicates, exclusions); carries no
    answers.

    Args:
        pool: `load_pool(options)`.
    """
    known = [problem for problem in pool.train if problem.level is not None]
    unknown = sorted(problem.problem_id for problem in pool.train if problem.level is None)
    return {
        "source": options.source,
        "benchmark": DOMAINS.load(options.source).benchmark,
        "train_by_level": counts_by_level(known),
        "benchmark_by_level": counts_by_level(pool.benchmark),
        "fingerprint": source_fingerprint(options),
        **({"unknown_level": unknown} if unknown else {}),
        **pool.findings,
        **({} if pool.distinct else _duplicates(known, pool, options)),
    }


def _duplicates(known: Sequence[Problem], pool: ProblemPool, options: Problems) -> dict[str, Any]:
    """Looked for once, here, and not by every stage that reads the pool."""
    from e2h_pipeline.problems.duplicates import duplicate_report

    return {"duplicates": duplicate_report(known, pool.benchmark, options.easy_levels)}
