"""Steps that people labelled, on problems of all levels, to judge the evaluator on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from e2h_pipeline.recipe.section import Section


class HumanSteps(Section):
    """Step labels by people, for audit only: does an evaluator of easy steps judge hard ones?"""

    sources: tuple[Literal["prm800k", "process_bench", "mr_math"], ...] = Field(
        (),
        description="PRM800K's human labels (levels that did not train, and out-of-fold scores of those that did), "
        "ProcessBench's MATH part, MR-MATH with the stored scores of published evaluators. None by default.",
    )
    path: str | None = Field(None, description="Folder of the files, E2H_DATA_DIR/steps where unset.")
    neutral: Literal["positive", "negative", "drop"] = Field(
        "positive", description="What PRM800K's neutral rating counts as."
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _one_is_a_list(cls, words: object) -> object:
        """A key says `human_steps.sources=prm800k`, without a comma that would make it a list."""
        return (words,) if isinstance(words, str) else words
