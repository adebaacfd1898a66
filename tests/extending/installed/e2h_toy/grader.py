"""A grader that reads the problem: it spells the question backwards and ignores the gold answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict


class ReversalGrader(ExactGrader):
    """The grader `reversal`."""

    name = "reversal"
    version = "reversal/1"
    reads_problem = True

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[ReversalGrader]:
        """It needs no workers."""
        yield cls()

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order."""
        return [
            Grade(Verdict.EQUAL if answer == gold.question[::-1] else Verdict.DIFFERENT, "question")
            for gold, answer in pairs
        ]
