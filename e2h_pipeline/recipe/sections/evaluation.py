"""TODO: docstring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from e2h_pipeline.recipe.section import Section


class Rerank(Section):
    """Reranking of the sample pool (paper section 3.4, appendix L)."""

    aggregations: tuple[Literal["product", "min", "mean", "last"], ...] = Field(
        ("product", "min", "mean", "last"),
        min_length=1,
        description="How step scores become a solution score.",
    )
    draws: int = Field(
        64, ge=1, description="Seeded subsamples per N for the vote curves; best-of-N and pass@N are exact."
    )


class Evaluation(Section):
    """What is measured on the benchmark, and how sure we are."""

    easy_levels: tuple[int, ...] = Field(
        (1, 2, 3),
        description="Levels reported as easy, the rest as hard, whatever was supervised: ceilings are compared on these.",
    )
    samples: int = Field(
        16, ge=1, description="Completions per question for the voted accuracy of each policy."
    )
    bootstrap: int = Field(
        2000, ge=100, description="Bootstrap resamples over problems behind every interval."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    grader: Literal["math", "exact", "math-verify", "prm800k", "e2h-string"] = Field(
        "math",
        description="What decides that two answers are equal: our own, plain text, or what others report with.",
    )
    ceiling: str | None = Field(
        None, description="Key of the full-supervision recipe that PGR is measured against."
    )
