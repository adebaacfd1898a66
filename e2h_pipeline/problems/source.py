"""The two problem sources behind one function, and the fingerprint that makes a changed file visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.files import SourceState, look_at_files
from e2h_pipeline.problems.records import (
    ProblemPool,
    ProblemSplit,
    counts_by_level,
    split_by_supervision,
)

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Problems


def look_at_source(options: Problems) -> SourceState:
    """The state of a source. Of the Hub, only commits are asked for."""
    from e2h_pipeline.problems.math.problems import math_files

    return look_at_files(
        lambda: math_files(options) if options.source == "math" else [],
        lambda: source_fingerprint(options),
        _read,
        options.model_dump_json(),
    )


def _read(options: str) -> None:
    from e2h_pipeline.recipe import Problems

    load_pool(Problems.model_validate_json(options))


def load_pool(options: Problems) -> ProblemPool:
    """All problems of the recipe's source, before the split."""
    if options.source == "ladder":
        from e2h_pipeline.problems.ladder.problems import ladder_pool

        return ladder_pool(options)
    from e2h_pipeline.problems.math.problems import math_pool

    return math_pool(options)


def load_split(options: Problems) -> ProblemSplit:
    """The partitions of supervision of the recipe's source."""
    return split_by_supervision(load_pool(options), options)


def source_fingerprint(options: Problems) -> dict[str, str]:
    """What the source is made of: file name -> SHA-256, Hub commit, or the ladder's own name.

    It enters the key of `problem_source`, so that a changed file is a changed artifact.
    """
    if options.source == "ladder":
        return {"generator": "ladder"}
    from e2h_pipeline.problems.math.problems import math_fingerprint

    return math_fingerprint(options)


def describe_source(options: Problems) -> dict[str, Any]:
    """Counts by level and what was found on the way (duplicates, exclusions); carries no answers."""
    pool = load_pool(options)
    return {
        "source": options.source,
        "benchmark": pool.benchmark_name,
        "train_by_level": counts_by_level(pool.train),
        "benchmark_by_level": counts_by_level(pool.benchmark),
        "fingerprint": source_fingerprint(options),
        **pool.findings,
        **_duplicates(pool, options),
    }


def _duplicates(pool: ProblemPool, options: Problems) -> dict[str, Any]:
    """Looked for once, here, and not by every stage that reads the pool; the ladder draws none."""
    if options.source == "ladder":
        return {}
    from e2h_pipeline.problems.duplicates import duplicate_report

    return {"duplicates": duplicate_report(pool.train, pool.benchmark, options.easy_levels)}
