"""What a domain of problems must say: one value, of which the rest of the project knows nothing else.

A domain is a family of problems with levels and a way to check answers: the ladder, MATH. Adding one is a folder here (or an
installed package, by the entry points `e2h.domains`) and one line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.recipe import Problems
from e2h_pipeline.solutions import MARKED, TextFormat

if TYPE_CHECKING:
    from e2h_pipeline.problems.records import ProblemPool


class AnswerOf(Protocol):
    """Finds the answer of a completion."""

    def __call__(self, completion: str, finished: bool) -> str | None:
        """The answer as text; None where there is none, as in a completion that was cut off."""
        ...


class StepChecker(Protocol):
    """Knows which steps are right: exact labels, where a domain has them."""

    def __call__(self, question: str, completion: str) -> list[int]:
        """A label for each segment of the completion: 1 right, 0 wrong, -1 behind the first wrong one."""
        ...


class ProblemReader(Protocol):
    """Where a domain's problems come from. A module of its own, so that its edits re-make only the stages that read."""

    def pool(self, options: Any) -> ProblemPool:
        """All problems, before the split.

        Raises:
            ProblemError: they cannot be read; the message names file, line or field and the mend.
        """
        ...

    def fingerprint(self, options: Any) -> Mapping[str, str]:
        """What the problems are made of: file name to SHA-256, Hub data set to commit, or the generator's name."""
        ...

    def files(self, options: Any) -> Sequence[Path]:
        """Local files to watch; none where there are none."""
        ...


@dataclass(frozen=True)
class Domain:
    """A family of problems with levels and a way to check answers.

    Attributes:
        name: the word of `problems.source`.
        benchmark: name of its benchmark in result tables. Numbers of two domains never share a row name.
        options: section of the recipe; its class says the levels, which of them may be supervised, and the grader.
        answer_of: finds the answer of a completion.
        reader: `module:Name` of its `ProblemReader`.
        step_checker: `module:Name` of its `StepChecker`; None where steps cannot be checked exactly.
        text: how prompts and solutions are written.
    """

    name: str
    benchmark: str
    options: type[Problems]
    answer_of: AnswerOf
    reader: str
    step_checker: str | None = None
    text: TextFormat = MARKED
