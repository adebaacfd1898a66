"""MATH and MATH500 from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from e2h_pipeline.problems.hub import commit_of, hub_tables, split_of
from e2h_pipeline.problems.math.records import Source, problem_of_record, refuse_repeats
from e2h_pipeline.problems.records import Problem

if TYPE_CHECKING:
    from e2h_pipeline.recipe import MathProblems

HUB_BENCHMARK = "HuggingFaceH4/MATH-500"
_WHOLE = ("default",)  # where there is none, each configuration is a subject


def hub_source(options: MathProblems) -> Source:
    """The records of `problems.hub` and of MATH500.

    Raises:
        ProblemError: they cannot be loaded, or a record cannot be used.
    """
    assert options.hub is not None
    names = options.hub, HUB_BENCHMARK
    commits = map(commit_of, names, revisions(options.hub_revision))  # of the fingerprint, not the newest
    return read_hub(*names, *commits)


def read_hub(
    name: str, benchmark: str, revision: str | None = None, benchmark_revision: str | None = None
) -> Source:
    """MATH and MATH500 through `datasets`, from Hub names or folders that `datasets` can read.

    Raises:
        ProblemError: they cannot be loaded, or a record cannot be used.
    """
    math = [
        problem
        for configuration, splits in hub_tables(name, revision, _WHOLE)
        for split in ("train", "test")
        for problem in _hub_problems(split_of(splits, split, name), split, configuration, name)
    ]
    rows = [
        row
        for _, splits in hub_tables(benchmark, benchmark_revision, _WHOLE)
        for row in split_of(splits, "test", benchmark)
    ]
    found = _hub_problems(rows, "test", "benchmark", benchmark)
    refuse_repeats(math, name)
    refuse_repeats(found, benchmark)
    return Source(math, found)


def _hub_problems(rows: Iterable[dict[str, Any]], split: str, configuration: str, name: str) -> list[Problem]:
    where = f"{name} {configuration}/{split} row"
    return [
        problem_of_record(
            row, str(row.get("unique_id") or f"{split}/{configuration}/row-{number}"), where, number
        )
        for number, row in enumerate(rows)
    ]


def revisions(text: str | None) -> tuple[str | None, str | None]:
    """Commits of MATH and of MATH500 from `problems.hub_revision`: `commit`, `commit+commit` or
    nothing."""
    first, _, second = (text or "").partition("+")
    return first or None, second or None
