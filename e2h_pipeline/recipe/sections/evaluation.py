"""Measurements on the benchmark: reranking, intervals, and the grader."""

from __future__ import annotations

from pydantic import Field, field_validator

from e2h_pipeline.recipe.section import Section, known_word

AGGREGATIONS = ("product", "min", "mean", "last")
GRADERS = ("math", "math-exact", "exact", "unit-tests", "math-verify", "prm800k", "e2h-string")
"""The words of this project; installed packages add more (entry points e2h.aggregations and
e2h.graders)."""


class Rerank(Section):
    """Reranking of the sample pool (paper section 3.4, appendix L)."""

    aggregations: tuple[str, ...] = Field(
        ("product", "min", "mean", "last"),
        min_length=1,
        description="How step scores become a solution score.",
    )
    draws: int = Field(
        64, ge=1, description="Seeded subsamples per N for the vote curves; best-of-N and pass@N are exact."
    )

    @field_validator("aggregations", mode="before")
    @classmethod
    def _one_is_a_list(cls, words: object) -> object:
        """A key says `rerank.aggregations=mean`, without a comma that would make it a list."""
        return (words,) if isinstance(words, str) else words

    @field_validator("aggregations")
    @classmethod
    def _known_aggregations(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known_word(word, AGGREGATIONS, "e2h.aggregations") for word in words)


class Evaluation(Section):
    """Measurements on the benchmark, and their intervals."""

    easy_levels: tuple[int, ...] = Field(
        (),
        description="Levels reported as easy, the rest as hard, whatever was supervised, so that ceilings are compared "
        "on the same levels. Unset: all levels that the domain allows to supervise.",
    )
    samples: int = Field(
        16, ge=1, description="Completions per question for the voted accuracy of each policy."
    )
    bootstrap: int = Field(
        2000, ge=100, description="Bootstrap resamples over problems behind every interval."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    grader: str = Field(
        "",
        description="Decides whether an answer is right: our own grader, plain text, unit tests, or one that others "
        "report with. Unset: the domain's own (math for MATH, exact for the ladder).",
    )
    ceiling: str | None = Field(
        None, description="Key of the full-supervision recipe that PGR is measured against."
    )

    @field_validator("grader")
    @classmethod
    def _known_grader(cls, word: str) -> str:
        return known_word(word, GRADERS, "e2h.graders") if word else word
