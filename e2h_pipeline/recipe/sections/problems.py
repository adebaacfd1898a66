"""TODO: docstring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from e2h_pipeline.recipe.section import Section


class LadderWorld(Section):
    """The synthetic levelled world: chains of operations modulo 7, one operation a step.

    Misconceptions make it honest: for a share of the facts of each operator the web corpus is
    wrong more often than right, always in the same way, so majority voting agrees on mistakes.
    """

    seed: int = Field(0, description="Seed of the world itself: which facts are misconceived and how.")
    operators: str = Field("+-*", description="Operators, from common to rare.")
    misconceived: tuple[float, ...] = Field(
        (0.2, 0.3, 0.45), description="Share of each operator's 49 facts that the corpus has wrong."
    )
    belief: float = Field(
        0.65, ge=0, le=1, description="How often the corpus writes the misconception when it meets one."
    )
    steps: tuple[tuple[int, int], ...] = Field(
        ((1, 3), (2, 4), (3, 5), (4, 6), (5, 8)),
        description="Least and most operations of a problem, per level 1-5.",
    )
    rare: tuple[float, ...] = Field(
        (0.3, 0.35, 0.4, 0.5, 0.6),
        description="Share of steps, per level 1-5, drawn from the later (rarer, more misconceived) half of the operators.",
    )


class Problems(Section):
    """Where problems come from and which of them may be supervised (paper section 3)."""

    source: Literal["ladder", "math"] = Field("ladder", description="The problem source.")
    easy_levels: tuple[int, ...] = Field(
        (1, 2, 3), description="Levels with full supervision; the rest give questions only."
    )
    seed: int = Field(
        0,
        description="Seed of the drawn problems (ladder) and of every subsample and hold-out (all sources).",
    )
    validation: int = Field(
        100, ge=0, description="Easy problems held out for choosing checkpoints and thresholds."
    )
    easy_limit: int | None = Field(
        None, ge=1, description="Keep at most this many easy problems (drawn by seed)."
    )
    hard_limit: int | None = Field(
        None, ge=1, description="Keep at most this many hard questions (drawn by seed)."
    )
    benchmark_limit: int | None = Field(
        None, ge=1, description="Keep at most this many benchmark problems (drawn by seed)."
    )
    train_per_level: int = Field(
        200, ge=1, description="ladder: problems drawn per level for the training pool."
    )
    world: LadderWorld = Field(default_factory=LadderWorld, description="ladder: the world.")
    path: str | None = Field(
        None,
        description="math: folder with math_train, math_test and math500 files; E2H_DATA_DIR/math where unset.",
    )
    hub: str | None = Field(
        None, description="math: dataset name on the Hugging Face Hub, used instead of a folder."
    )
    hub_revision: str | None = Field(
        None, description="math: commit of the Hub data set; set it, or results can move."
    )
    strict_counts: bool = Field(
        True, description="math: refuse anything but the published 12,000/500 split and its level counts."
    )

    hard_answers: bool = Field(
        False,
        description="Control (the paper's dagger rows): hard questions carry their answers for reinforcement learning. "
        "Needs strict: false.",
    )

    @model_validator(mode="after")
    def _levels(self) -> Problems:
        if not self.easy_levels or not set(self.easy_levels) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"easy_levels must be a non-empty subset of 1-5, got {self.easy_levels}")
        return self


class Solutions(Section):
    """Whose solutions of easy problems the policy is taught (paper section 3.2, appendix C.1)."""

    source: Literal["reference", "prm800k", "metamath"] = Field(
        "reference",
        description="Those that come with the problems; steps of PRM800K's solutions that people rated right; or a file in "
        "MetaMathQA's format: rewritten easy problems of MATH and GSM8K with solutions.",
    )
    path: str | None = Field(
        None,
        description="prm800k: file or folder of labels, E2H_DATA_DIR/steps where unset; metamath: .json or .jsonl file, "
        "MetaMathQA* of E2H_DATA_DIR/metamath where unset.",
    )
    per_question: int | None = Field(
        None,
        ge=1,
        description="metamath: keep at most this many solutions of a (rewritten) question (drawn by problems.seed).",
    )

    @property
    def from_files(self) -> bool:
        """Whether they are others' solutions, so that what they must not show has to be known."""
        return self.source != "reference"
