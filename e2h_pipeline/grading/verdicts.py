"""What graders are asked, what they say, and the interface they share."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


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
        ms: milliseconds of CPU time spent on it; 0 where an earlier pair had the same answer.
        detail: why an answer is not right, for people, where a grader knows more than the tier.
    """

    verdict: Verdict
    tier: str
    ms: float = 0.0
    detail: str = ""


class Gold(NamedTuple):
    """What an answer is checked against.

    A tuple, because golds are sorted, hashed and sent to other processes by the hundred thousand.

    Attributes:
        answer: the right answer.
        question: of the problem; empty where the caller has none.
        payload: what else the domain needs to check an answer, such as unit tests. Sorted by name.
    """

    answer: str
    question: str = ""
    payload: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Gold:
        """Of a table row with `answer` and, where they are there, `question` and the map `payload`."""
        return cls(str(row["answer"]), row.get("question") or "", payload_items(row))


def payload_items(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The payload of a table row, as a `Gold` has it; empty where the table has none.

    Arrow gives a map as pairs.
    """
    return tuple(sorted(dict(row.get("payload") or ()).items()))


Pair = tuple[Gold, str]
"""A gold and the answer to grade."""


class Grader(Protocol):
    """Decides pairs of gold and answer.

    Attributes:
        name: its word in the recipe.
        version: says all that could change a verdict.
        undecided: how many of the pairs it was asked it gave up on.
        reads_problem: whether it looks at more of a gold than the answer. Where it does not, pairs
            with the same two answers are one pair.
    """

    name: str
    version: str
    undecided: int
    reads_problem: bool

    def grade_pairs(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade per pair, in order; never an exception on account of the text."""
        ...

    def classes(
        self, problems: Sequence[Sequence[str | None]], questions: Sequence[str] = ()
    ) -> list[list[int | None]]:
        """Which answers to a problem vote together.

        Args:
            problems: the answers to each problem; None where there is none.
            questions: of the problems, where the caller has them. Few graders look.

        Returns:
            A class number per answer, numbered within its problem by first appearance. None stays
            None, and an answer that cannot be one (a program that fails on every input) becomes None.
            Which answers share a class depends on the set of answers, never on their order, and gold
            has no say in it.
        """
        ...


class GraderEntry(Protocol):
    """What an entry of the registry of graders must have; a grader class, as a rule."""

    def open(self, workers: int | None, cpu_seconds: float) -> AbstractContextManager[Grader]:
        """A grader, and its processes for as long as the block lasts.

        Args:
            workers: processes behind it; one per core, at most 8, where None.
            cpu_seconds: CPU time a pair may take before it is undecided.
        """
        ...


class Decided(NamedTuple):
    """Verdicts of pairs (None where there was none), and how many distinct pairs stayed undecided."""

    verdicts: list[Verdict | None]
    undecided: int


def verdicts(judge: Grader, pairs: Sequence[Pair]) -> list[Verdict]:
    """The bare verdicts of `grade_pairs`."""
    return [grade.verdict for grade in judge.grade_pairs(pairs)]


def decide(judge: Grader, pairs: Sequence[Pair | None]) -> Decided:
    """Grade each distinct pair once, in an order that does not depend on the order of the pairs.

    Args:
        pairs: None stands for a sample without an answer.
    """
    seen = [None if pair is None else (seen_by(judge, pair[0]), pair[1]) for pair in pairs]
    distinct = sorted({pair for pair in seen if pair is not None})
    found = dict(zip(distinct, verdicts(judge, distinct), strict=True))
    undecided = sum(verdict is Verdict.UNDECIDED for verdict in found.values())
    return Decided([None if pair is None else found[pair] for pair in seen], undecided)


def seen_by(judge: Grader, gold: Gold) -> Gold:
    """What a grader looks at of a gold."""
    return gold if judge.reads_problem else Gold(gold.answer)
