"""What graders say, and the interface they share."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Verdict(enum.StrEnum):
    """What a grader says of a pair."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict and where it comes from.

    Attributes:
        tier: the rule that decided, such as `text`, `form` or `sympy`.
        ms: milliseconds spent on it; 0 where an earlier pair had the same answer.
    """

    verdict: Verdict
    tier: str
    ms: float = 0.0


class Grader(Protocol):
    """Decides pairs (gold, answer). `version` says all that could change a verdict."""

    name: str
    version: str
    undecided: int

    def grade_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Grade]:
        """A grade per (gold, answer) pair, in order; never an exception on account of the text."""
        ...

    def classes(self, problems: Sequence[Sequence[str | None]]) -> list[list[int | None]]:
        """Answers that vote together, problem by problem: a class number each, numbered by first
        appearance; None (no answer) stays None. Which answers share a class depends on the set of
        answers, never on their order."""
        ...


def verdicts(judge: Grader, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """The bare verdicts of `grade_pairs`."""
    return [grade.verdict for grade in judge.grade_pairs(pairs)]
