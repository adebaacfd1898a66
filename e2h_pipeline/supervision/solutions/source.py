"""The protocol of sources of solutions for fine-tuning the policy.

A source is one file here, or one of an installed package (entry points `e2h.solutions`), and one
line in the registry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.problems.same_problem import KnownQuestions
from e2h_pipeline.problems.supplied_files import Supplied
from e2h_pipeline.supervision.matching import by_question

if TYPE_CHECKING:
    from e2h_pipeline.problems.jsonl import BadLine
    from e2h_pipeline.solutions import TextFormat

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class SolutionJob:
    """The argument of a source of solutions.

    Attributes:
        options: the section of the recipe that names this source.
        train: rows of the easy training problems: id, level, question, steps, answer.
        apart: every held-out question, by content.
        text: format of completions.
        seed: of random draws.
        unlevelled: sets of problems that have no levels and count as easy, of the domain.
    """

    options: Any
    train: Sequence[dict[str, Any]]
    apart: KnownQuestions
    text: TextFormat
    seed: int
    unlevelled: Collection[str] = ()

    def by_text(self) -> dict[str, dict[str, Any]]:
        """Training problems by `same_key` of their question. A text that is also a held-out
        question's is left out: it fits two problems."""
        found = by_question(self.train).items()
        return {text: row for text, row in found if self.apart.find(row["question"]) is None}


@dataclass(frozen=True)
class DrawnSolutions:
    """The result of a source of solutions.

    Attributes:
        rows: from `solution_row`.
        dropped: how many solutions were left out, by reason.
        bad_lines: lines of files that cannot be used.
    """

    rows: Rows
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad_lines: Sequence[BadLine] = ()


class SolutionSource(Supplied, Protocol):
    """Gives solutions of easy training problems. The registry's entry is the class; it is made
    without arguments."""

    def draw(self, job: SolutionJob) -> DrawnSolutions:
        """Solutions of easy training problems, in the same order each time.

        Raises:
            ProblemError: files that cannot be used.
        """
        ...


def solution_row(
    problem: Mapping[str, Any],
    source: str,
    question: str,
    completion: str,
    learned: Sequence[bool],
    *,
    finished: bool = True,
) -> dict[str, Any]:
    """A row of `easy_solutions`.

    Args:
        problem: the solved or the original problem: `problem_id` and `level`.
        source: author of the solution.
        question: the solved one; a rewritten one differs from that of `problem`.
        learned: a flag for each segment of the completion.
        finished: the completion is complete.
    """
    return {
        "problem_id": problem["problem_id"],
        "level": problem["level"],
        "source": source,
        "question": question,
        "completion": completion,
        "learned": list(learned),
        "finished": finished,
    }


def whole_solution(
    problem: Mapping[str, Any], source: str, question: str, completion: str, text: TextFormat
) -> dict[str, Any]:
    """`solution_row` with every segment learned."""
    return solution_row(problem, source, question, completion, [True] * len(text.parse(completion).spans))
