"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Sequence

from e2h_pipeline.grading.classes import connected
from e2h_pipeline.grading.verdicts import Grade, Verdict


class ExactGrader:
    """Equal strings after stripping white space."""

    name = "exact"
    version = "exact/1"
    undecided = 0

    def grade_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """A grade per pair, in order."""
        return [
            Grade(Verdict.EQUAL if gold.strip() == answer.strip() else Verdict.DIFFERENT, "text")
            for gold, answer in pairs
        ]

    def classes(self, problems: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
        """Answers with the same text share a class."""
        return [connected([a if a is None else a.strip() for a in answers], ()) for answers in problems]
