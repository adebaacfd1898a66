"""Questions for training a policy, and questions for choosing its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.grading.verdicts import Gold, payload_items
from e2h_pipeline.rl.algorithms import EASY_PROBLEMS, HARD_QUESTIONS

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Rl


@dataclass(frozen=True)
class Question:
    """A question to roll out on.

    Attributes:
        answer: None where it must stay hidden.
        level: 0 where it is unknown.
        payload: other data for a grader, as in `Gold`.
    """

    problem_id: str
    question: str
    answer: str | None
    level: int = 0
    hard: bool = False
    payload: tuple[tuple[str, str], ...] = ()

    @property
    def gold(self) -> Gold | None:
        """The gold to check answers against; None where it must stay hidden."""
        return None if self.answer is None else Gold(self.answer, self.question, self.payload)


def read_questions(inputs: Mapping[str, Path], options: Rl) -> tuple[list[Question], list[Question]]:
    """Questions to roll out on, and easy validation questions.

    Hard questions have answers only in controls (`problems.hard_answers`), in a column of the
    table.

    Args:
        inputs: folders of `easy_problems` and `hard_questions`.
    """
    easy = read_table(inputs[EASY_PROBLEMS] / TABLE).to_pylist()
    hard = [
        Question(r["problem_id"], r["question"], r.get("answer"), r["level"], True, payload_items(r))
        for r in read_table(inputs[HARD_QUESTIONS] / TABLE).to_pylist()
    ]
    train = [
        Question(r["problem_id"], r["question"], r["answer"], r["level"], payload=payload_items(r))
        for r in easy
        if r["split"] == "train"
    ]
    asked = {"all": [*train, *hard], "easy": train, "hard": hard}[options.questions]
    validation = [
        Question(r["problem_id"], r["question"], r["answer"], payload=payload_items(r))
        for r in easy
        if r["split"] == "validation"
    ]
    return asked, validation
