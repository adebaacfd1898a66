"""Sources of problems, levels that may be supervised, and solutions for fine-tuning the policy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from e2h_pipeline.recipe.section import Family, Section

SPLIT_FIELDS = (
    "easy_levels",
    "seed",
    "validation",
    "easy_limit",
    "hard_limit",
    "benchmark_limit",
    "hard_answers",
)
"""Fields that select problems from a source, and do not define the source."""


class Problems(Section):
    """Where problems come from and which of them may be supervised (paper section 3).

    A domain subclasses this section. The subclass lists the levels, easiest first, by number from 1
    and by name where they have names. It also gives the levels that a strict recipe may supervise,
    the default grader, and whether the problems themselves are drawn from `seed`.
    """

    levels: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5)
    level_names: ClassVar[tuple[str, ...]] = ()
    supervisable_levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    grader: ClassVar[str] = "math"
    drawn: ClassVar[bool] = False

    source: str = Field("ladder", description="The domain of the problems.")
    easy_levels: tuple[int, ...] = Field(
        (),
        validate_default=True,
        description="Levels with full supervision, by number or name; the rest give questions only. Unset: all levels "
        "that the domain allows to supervise (1-3 of MATH and the ladder, 1-2 of GSM8K).",
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
    hard_answers: bool = Field(
        False,
        description="Control (the paper's dagger rows): hard questions carry their answers for reinforcement learning. "
        "Needs strict: false.",
    )

    @field_validator("easy_levels", mode="before")
    @classmethod
    def _by_name(cls, levels: object) -> object:
        """Names of levels as numbers."""
        if isinstance(levels, str | int):
            levels = (levels,)
        if not isinstance(levels, list | tuple):
            return levels
        return tuple(cls.level_names.index(x) + 1 if x in cls.level_names else x for x in levels)

    @field_validator("easy_levels")
    @classmethod
    def _known(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not set(levels) <= set(cls.levels):
            known = ", ".join(map(str, (*cls.levels, *cls.level_names)))
            raise ValueError(f"easy_levels must be some of {known}, got {levels}")
        return levels or cls.supervisable_levels


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


class LadderProblems(Problems):
    """Problems of the synthetic ladder world, drawn here."""

    grader: ClassVar[str] = "exact"
    drawn: ClassVar[bool] = True

    source: Literal["ladder"] = Field("ladder", description="The domain of the problems.")
    train_per_level: int = Field(200, ge=1, description="Problems drawn per level for the training pool.")
    world: LadderWorld = Field(default_factory=LadderWorld, description="The world.")


class MathProblems(Problems):
    """MATH and MATH500, from a folder or the Hub."""

    source: Literal["math"] = Field("math", description="The domain of the problems.")
    path: str | None = Field(
        None,
        description="Folder with math_train, math_test and math500 files; E2H_DATA_DIR/math where unset.",
    )
    hub: str | None = Field(
        None, description="Dataset name on the Hugging Face Hub, used instead of a folder."
    )
    hub_revision: str | None = Field(
        None, description="Commit of the Hub data set; set it, or results can move."
    )
    strict_counts: bool = Field(
        True, description="Refuse anything but the published 12,000/500 split and its level counts."
    )


class Gsm8kProblems(Problems):
    """GSM8K (Cobbe et al. 2021), from a folder or the Hub. Levels count the lines of the annotated
    solution: 2 or fewer, 3, 4, 5, 6 or more."""

    level_names: ClassVar[tuple[str, ...]] = ("two-step", "three-step", "four-step", "five-step", "six-step+")
    supervisable_levels: ClassVar[tuple[int, ...]] = (1, 2)

    source: Literal["gsm8k"] = Field("gsm8k", description="The domain of the problems.")
    path: str | None = Field(
        None, description="Folder with the files train and test; E2H_DATA_DIR/gsm8k where unset."
    )
    hub: str | None = Field(
        None, description="Dataset name on the Hugging Face Hub (openai/gsm8k), used instead of a folder."
    )
    hub_revision: str | None = Field(
        None, description="Commit of the Hub data set; set it, or results can move."
    )
    strict_counts: bool = Field(
        True, description="Refuse anything but the published 7,473/1,319 split and its counts of steps."
    )


class CodeProblems(Problems):
    """Programming problems with tests, from a folder: APPS, LiveCodeBench, HumanEval, MBPP (docs/code.md)."""

    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    level_names: ClassVar[tuple[str, ...]] = ("introductory", "interview", "competition")
    supervisable_levels: ClassVar[tuple[int, ...]] = (1,)
    grader: ClassVar[str] = "unit-tests"

    source: Literal["code"] = Field("code", description="The domain of the problems.")
    path: str | None = Field(
        None, description="Folder with the files train and test; E2H_DATA_DIR/code where unset."
    )


PROBLEMS = Family(
    "problems",
    "source",
    "ladder",
    "e2h.domains",
    Problems,
    {"ladder": LadderProblems, "math": MathProblems, "gsm8k": Gsm8kProblems, "code": CodeProblems},
)


class Solutions(Section):
    """Solutions of easy problems for fine-tuning the policy (paper section 3.2, appendix C.1)."""

    source: str = Field("reference", description="Where the solutions come from.")

    @property
    def from_files(self) -> bool:
        """Whether they come from files, and so must be checked against held-out questions."""
        return self.source != "reference"


class ReferenceSolutions(Solutions):
    """The solutions that come with the problems."""

    source: Literal["reference"] = Field("reference", description="Where the solutions come from.")


class Prm800kSolutions(Solutions):
    """The steps of PRM800K's solutions that people rated right."""

    source: Literal["prm800k"] = Field("prm800k", description="Where the solutions come from.")
    path: str | None = Field(None, description="File or folder of labels, E2H_DATA_DIR/steps where unset.")


class MetaMathSolutions(Solutions):
    """A file in MetaMathQA's format: rewritten easy problems of MATH and GSM8K with solutions."""

    source: Literal["metamath"] = Field("metamath", description="Where the solutions come from.")
    path: str | None = Field(
        None, description=".json or .jsonl file, MetaMathQA* of E2H_DATA_DIR/metamath where unset."
    )
    per_question: int | None = Field(
        None,
        ge=1,
        description="Keep at most this many solutions of a (rewritten) question (drawn by problems.seed).",
    )


SOLUTIONS = Family(
    "solutions",
    "source",
    "reference",
    "e2h.solutions",
    Solutions,
    {"reference": ReferenceSolutions, "prm800k": Prm800kSolutions, "metamath": MetaMathSolutions},
)
