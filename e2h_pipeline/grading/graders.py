"""Graders by their word in the recipe (`evaluation.grader`).

The words and the classes behind them are in the registry (`GRADERS`); docs/grading.md says what
each does. A pair that costs too much time, memory or text is `UNDECIDED`: it counts as wrong, and
the grader counts how many there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2h_pipeline.grading.verdicts import Grade, Grader, GraderEntry, Verdict, verdicts
from e2h_pipeline.grading.worker_pool import CPU_SECONDS
from e2h_pipeline.registry import GRADERS

__all__ = ["Grade", "Grader", "Verdict", "grader", "verdicts"]


@contextmanager
def grader(word: str, workers: int | None = None, cpu_seconds: float = CPU_SECONDS) -> Iterator[Grader]:
    """The grader of a word; its processes end with the block. Arguments as of `GraderEntry.open`.

    Raises:
        RegistryError: there is no such word, or the stage that runs does not declare `evaluation.grader`.
    """
    entry: GraderEntry = GRADERS.load(word)
    with entry.open(workers, cpu_seconds) as judge:
        yield judge
