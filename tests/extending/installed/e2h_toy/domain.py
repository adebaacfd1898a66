"""Words to spell backwards, letter by letter: three named levels and a text format of its own."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from e2h_pipeline.problems.domain import Domain, Example
from e2h_pipeline.recipe import Problems
from e2h_pipeline.solutions import TextFormat

LETTERS = "abcd"
TEXT = TextFormat(
    question_heading="Reverse:", solution_heading="Letters:", answer_marker="Word:", separator="\n"
)


class ReversalProblems(Problems):
    """Words of a few letters; the longer, the harder."""

    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    level_names: ClassVar[tuple[str, ...]] = ("short", "medium", "long")
    supervisable_levels: ClassVar[tuple[int, ...]] = (1, 2)
    grader: ClassVar[str] = "reversal"

    source: Literal["reversal"] = Field("reversal", description="The domain of the problems.")
    train_per_level: int = Field(20, ge=1, description="Words drawn per level for the training pool.")


def answer_of(completion: str, finished: bool) -> str | None:
    """The text after `Word:`; a completion that was cut off has no answer."""
    return TEXT.parse(completion).answer if finished else None


REVERSAL = Domain(
    name="reversal",
    benchmark="REVERSAL30",
    options=ReversalProblems,
    answer_of=answer_of,
    reader="e2h_toy.reader:ReversalReader",
    step_checker="e2h_toy.checker:letter_labels",
    corpus="e2h_toy.corpus:ReversalCorpus",
    text=TEXT,
    example=Example("abd", ("d", "b", "a"), "dba"),
)
