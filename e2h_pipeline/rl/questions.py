"""TODO: docstring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.rl.rollouts import (
    Question,
)

if TYPE_CHECKING:
    from e2h_pipeline.recipe import Rl


def read_questions(
    easy_problems: Path, hard_questions: Path, options: Rl
) -> tuple[list[Question], list[Question]]:
    """Questions to roll out on, and easy validation questions. Hard ones come with an answer in controls alone, whose
    table of hard questions has a column of answers (`problems.hard_answers`)."""
    easy = read_table(
        easy_problems / "data.parquet", ["problem_id", "level", "question", "answer", "split"]
    ).to_pylist()
    hard = [
        Question(r["problem_id"], r["question"], r.get("answer"), r["level"], hard=True)
        for r in read_table(hard_questions / "data.parquet").to_pylist()
    ]
    train = [
        Question(r["problem_id"], r["question"], r["answer"], r["level"])
        for r in easy
        if r["split"] == "train"
    ]
    asked = {"all": [*train, *hard], "easy": train, "hard": hard}[options.questions]
    validation = [
        Question(r["problem_id"], r["question"], r["answer"]) for r in easy if r["split"] == "validation"
    ]
    return asked, validation
