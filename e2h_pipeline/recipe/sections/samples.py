"""Where the pool of benchmark samples comes from, which reranking chooses from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from e2h_pipeline.recipe.section import Family, Section

_SOURCE = "Where the samples of benchmark questions come from."
_OUR_POLICIES = ("base", "sft", "rl")


class Samples(Section):
    """The pool of benchmark samples that reranking chooses from.

    A source subclasses this section. `drawn` says whether the policy draws the samples, by `sampling`
    and `search`.
    """

    drawn: ClassVar[bool] = False

    source: str = Field("policy", description=_SOURCE)

    @property
    def drawn_by(self) -> str:
        """Name in tables of who drew the samples."""
        return "samples"


class PolicySamples(Samples):
    """Samples that the SFT policy draws."""

    drawn: ClassVar[bool] = True

    source: Literal["policy"] = Field("policy", description=_SOURCE)

    @property
    def drawn_by(self) -> str:
        """The SFT policy."""
        return "sft"


class FileSamples(Samples):
    """Completions by another's model, from a file."""

    source: Literal["file"] = Field("file", description=_SOURCE)
    path: str | None = Field(
        None,
        description="JSON lines, gzipped or not; a bare name is that of a file in E2H_DATA_DIR/outputs. A line has "
        "problem_id (or unique_id) or question (or problem), and samples (docs/outside.md).",
    )
    per_question: int | None = Field(
        None,
        ge=1,
        description="Take the first so many samples of each question. Unset: all; every question must have equally many.",
    )
    author: str = Field(
        "samples",
        pattern=r"^[a-z][a-z0-9._-]{0,39}$",
        description="Name in tables of who drew the samples; not base, sft or rl, which are our policies.",
    )

    @field_validator("author")
    @classmethod
    def _not_ours(cls, author: str) -> str:
        if author in _OUR_POLICIES:
            raise ValueError(f"{author} is one of our policies; give samples by others another name")
        return author

    @property
    def drawn_by(self) -> str:
        """Their author."""
        return self.author


SAMPLES = Family(
    "samples", "source", "policy", "e2h.samples", Samples, {"policy": PolicySamples, "file": FileSamples}
)
