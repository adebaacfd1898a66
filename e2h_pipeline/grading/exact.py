"""`exact`: two answers are equal if their texts are. The ladder writes each answer in one way only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from e2h_pipeline.grading.classes import connected
from e2h_pipeline.grading.verdicts import Grade, Pair, Verdict


class ExactGrader:
    """Equal texts after stripping white space."""

    name = "exact"
    version = "exact/1"
    undecided = 0
    reads_problem = False

    @classmethod
    @contextmanager
    def open(cls, workers: int | None, cpu_seconds: float) -> Iterator[ExactGrader]:
        """See `GraderEntry`; it needs no workers."""
        yield cls()

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order."""
        return [
            Grade(Verdict.EQUAL if gold.answer.strip() == answer.strip() else Verdict.DIFFERENT, "text")
            for gold, answer in pairs
        ]

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """Answers with the same text share a class."""
        return [connected([a if a is None else a.strip() for a in answers], ()) for answers in problems]
