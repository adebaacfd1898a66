"""What a domain of problems must say: one value, and the rest of the project knows nothing else of
it.

A domain is a family of problems with levels and a way to check answers: the ladder, MATH. Adding
one is a folder here (or an installed package, by the entry points `e2h.domains`) and one line in
the registry.

A domain's parts (reader, step checker, corpus) are modules of their own, named by `module:Name`:
nearly every stage reads the domain, few read a part, and an edit of a part re-makes only the stages
that use it. All of these modules must be light to import: torch and transformers belong inside
functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from e2h_pipeline.recipe import Problems
from e2h_pipeline.solutions import MARKED, TextFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from e2h_pipeline.problems.records import ProblemPool
    from e2h_pipeline.recipe import Base


class AnswerOf(Protocol):
    """Finds the answer of a completion."""

    def __call__(self, completion: str, finished: bool) -> str | None:
        """The answer as text; None where there is none, as in a completion that was cut off."""
        ...


class StepChecker(Protocol):
    """Knows which steps are right: exact labels, where a domain has them."""

    def __call__(self, question: str, completion: str) -> list[int]:
        """A label for each segment of the completion: 1 right, 0 wrong, -1 behind the first wrong
        one."""
        ...


class ProblemReader(Protocol):
    """Where a domain's problems come from. The entry is a class that is made without arguments.

    `options` is the recipe's section of the domain, an instance of `Domain.options`.
    """

    def pool(self, options: Any) -> ProblemPool:
        """All problems, before the split.

        Raises:
            ProblemError: they cannot be read; the message names file, line or field and the mend.
        """
        ...

    def fingerprint(self, options: Any) -> Mapping[str, str]:
        """What the problems are made of: file name to SHA-256, Hub data set to commit, or the
        generator's name.

        Raises:
            ProblemError: no data.
        """
        ...

    def files(self, options: Any) -> Sequence[Path]:
        """Local files to watch; none where there are none.

        Raises:
            ProblemError: one is missing.
        """
        ...


class Corpus(Protocol):
    """What a base model is trained on from nothing (`base.train: true`). The entry is a class that
    is made without arguments.

    `problems` is the recipe's section of the domain, of which `source` and `world` alone keep their
    values: the base model must not depend on which problems an experiment draws.

    Attributes:
        shipped: name of the model in the package that was trained on this corpus; None where there
            is none.
    """

    @property
    def shipped(self) -> str | None: ...

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer with padding and end tokens; the same every time."""
        ...

    def document(self, options: Base, problems: Any, name: str) -> Iterable[tuple[str, bool]]:
        """The document of a name, in pieces: (text, whether it counts in the loss). Drawn from
        `options.seed` and the name."""
        ...

    def knobs(self, options: Base, problems: Any) -> dict[str, dict[str, Any]]:
        """Recipe section to field to value (JSON) of all that shapes the model. Equal knobs make an
        equal model."""
        ...


@dataclass(frozen=True)
class Example:
    """A problem with its solution, as a domain writes them: what a tokenizer must be able to carry."""

    question: str
    steps: tuple[str, ...]
    answer: str


PROSE = Example(
    "Let $f(x) = 3x^2 - 0.5$ for x >= 0.  What is f(12)?",
    (
        "Put 12 for x: $f(12) = 3 \\cdot 12^{2} - 0.5$,\n    and $12^2 = 144$ (not 24).",
        "So it is 3 * 144 = 432, less 0.5 : that's 431.5 !",
        'Check: $\\frac{6789}{10} \\neq 431.5$ & 100% of [a, b] <= {c}; "d" ~ e_1 # @ | `g`?',
    ),
    "\\boxed{431.5}",
)
"""Digits, LaTeX, punctuation, two spaces, an indented line."""


@dataclass(frozen=True)
class Domain:
    """A family of problems with levels and a way to check answers.

    Domains are handed to worker processes, so `answer_of` is a function of a module, and no lambda.

    Attributes:
        name: the word of `problems.source`.
        benchmark: name of its benchmark in result tables. Numbers of two domains never share a row
            name.
        options: section of the recipe; its class says the levels, which of them may be supervised,
            and the grader.
        answer_of: finds the answer of a completion.
        reader: `module:Name` of its `ProblemReader`.
        step_checker: `module:Name` of its `StepChecker`; None where steps cannot be checked
            exactly.
        corpus: `module:Name` of its `Corpus`; None where no base model can be trained from nothing.
        text: how prompts and solutions are written.
        outside_answer_of: finds the answer of a text by another's model, which marks it in its own way;
            `answer_of` where unset.
        unlevelled_easy: other people's sets of problems, by the names that files of solutions give
            them, that have no levels and count as easy beside this domain's problems.
        is_blind: whether an answer cannot depend on what it is asked, as a program that never looks at its
            input; None where an answer is no function. Policies under reinforcement learning find such answers.
        example: a problem with its solution; a base model whose tokenizer loses some of it is refused.
    """

    name: str
    benchmark: str
    options: type[Problems]
    answer_of: AnswerOf
    reader: str
    step_checker: str | None = None
    corpus: str | None = None
    text: TextFormat = MARKED
    outside_answer_of: AnswerOf | None = None
    unlevelled_easy: frozenset[str] = frozenset()
    is_blind: Callable[[str], bool] | None = None
    example: Example = PROSE

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels there are, easiest first, from 1."""
        return self.options.levels

    @property
    def level_names(self) -> tuple[str, ...]:
        """Their names in the same order; empty where they have none."""
        return self.options.level_names

    @property
    def supervisable(self) -> tuple[int, ...]:
        """The levels that a strict recipe may supervise."""
        return self.options.supervisable_levels

    @property
    def grader(self) -> str:
        """The grader, unless the recipe names another."""
        return self.options.grader

    def blind(self, answer: str | None) -> bool | None:
        """`is_blind` of an answer; None where the domain has no such answers, or there is no answer."""
        return None if self.is_blind is None or answer is None else self.is_blind(answer)

    def in_own_format(self, completion: str, finished: bool = True) -> str:
        """A completion by another's model, with its answer as this domain writes answers: behind the
        text, which is kept. One without an answer, or that has it there already, stays as it is."""
        written = self.text.parse(completion)
        answer = (self.outside_answer_of or self.answer_of)(completion, finished)
        if answer is None or written.answer is not None:
            return completion
        return self.text.completion(written.steps, answer)
