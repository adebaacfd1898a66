"""The ladder: a synthetic levelled world with an exact step checker, an honest model organism.

A problem is a chain of operations modulo 7, worked from left to right: question `3+5*2`, solution
steps `3+5=1` and `1*2=2`, answer `2`. Levels overlap in length, as MATH's do, and harder levels
lean on the rarer operators, which the web gets wrong more often.

What makes it honest is the corpus the base model learns from (`corpus.py`). For a share of the
facts of each operator most authors believe the same wrong result. So votes among samples agree on
mistakes, and only supervision can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import MARKED

TEXT = MARKED
"""How the ladder writes prompts and solutions: the default format."""

OPERATORS = "+-*"
MODULUS = 7
DIGITS = "0123456"


def apply(operator: str, a: int, b: int) -> int:
    """The true result of one operation, 0-6.

    Raises:
        ProblemError: an operator that the ladder does not have.
    """
    if operator == "+":
        return (a + b) % MODULUS
    if operator == "-":
        return (a - b) % MODULUS
    if operator == "*":
        return (a * b) % MODULUS
    raise ProblemError(f"unknown ladder operator {operator!r}; there are {' '.join(OPERATORS)}")


@dataclass(frozen=True)
class Chain:
    """A parsed question: the first number and the (operator, operand) pairs."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def question(self) -> str:
        """As text, `3+5*2`."""
        return str(self.start) + "".join(f"{op}{b}" for op, b in self.operations)

    def true_steps(self) -> list[str]:
        """The one right solution, a step per operation."""
        steps, value = [], self.start
        for op, b in self.operations:
            result = apply(op, value, b)
            steps.append(f"{value}{op}{b}={result}")
            value = result
        return steps


def parse_question(question: str) -> Chain:
    """Read a ladder question.

    Raises:
        ProblemError: it is not a chain of single-digit operations modulo 7.
    """
    text = question.strip()
    start, rest = text[:1], text[1:]
    pairs = [(rest[i], rest[i + 1 : i + 2]) for i in range(0, len(rest), 2)]
    if start not in DIGITS or not start or not all(op in OPERATORS and b and b in DIGITS for op, b in pairs):
        raise ProblemError(f"not a ladder question: {question[:60]!r}")
    return Chain(int(start), tuple((op, int(b)) for op, b in pairs))
