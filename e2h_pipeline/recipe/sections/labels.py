"""Where step labels of easy problems come from: one source, or several with weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from e2h_pipeline.recipe.section import Family, Section

_SOURCE = "Where the labels come from."


class Labels(Section):
    """Step labels on easy problems; they stop at the first error (paper section 3.3, appendix
    L)."""

    source: str = Field("checker", description=_SOURCE)
    weight: float = Field(
        1.0,
        gt=0,
        description="Weight of these labels in the evaluator's loss, beside those of other sources.",
    )
    limit: int | None = Field(
        None, ge=1, description="Keep at most this many labelled solutions (drawn by seed)."
    )


class CheckerLabels(Labels):
    """Labels of the policy's own solutions by the domain's exact checker."""

    source: Literal["checker"] = Field("checker", description=_SOURCE)
    balance: bool = Field(
        True, description="Balance right and wrong solutions of each problem, as far as there are both."
    )


class Prm800kLabels(Labels):
    """Human step labels of PRM800K (Lightman et al. 2023)."""

    source: Literal["prm800k"] = Field("prm800k", description=_SOURCE)
    path: str | None = Field(None, description="File or folder of labels; E2H_DATA_DIR/steps where unset.")
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive", description="Label of a neutral rating; the paper takes positive, soft is 0.5."
    )


class PeopleLabels(Labels):
    """Step labels that people gave on the page of `e2h label`."""

    source: Literal["people"] = Field("people", description=_SOURCE)
    path: str | None = Field(
        None,
        description="File that `e2h label` wrote; people.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset.",
    )
    neutral: Literal["positive", "negative", "soft", "drop"] = Field(
        "positive", description="Label of a neutral rating; soft is 0.5."
    )


class ShepherdLabels(Labels):
    """Step labels from a file in Math-Shepherd's format."""

    source: Literal["shepherd"] = Field("shepherd", description=_SOURCE)
    path: str | None = Field(
        None,
        description="File of labels; math-shepherd.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset.",
    )


class PrmBenchLabels(Labels):
    """Step labels of PRMBench: planted errors, as a control."""

    source: Literal["prmbench"] = Field("prmbench", description=_SOURCE)
    path: str | None = Field(
        None, description="File of labels; prmbench.jsonl or .jsonl.gz in E2H_DATA_DIR/steps where unset."
    )


class MonteCarloLabels(Labels):
    """Labels from completions of each step by the policy (Math-Shepherd's rule)."""

    source: Literal["monte_carlo"] = Field("monte_carlo", description=_SOURCE)
    completions: int = Field(8, ge=1, description="Completions drawn after each step (Math-Shepherd: 8).")
    soft: bool = Field(
        False,
        description="Label a step by its share of right completions, not by whether there is one.",
    )
    balance: bool = Field(
        True, description="Balance right and wrong solutions of each problem, as far as there are both."
    )


LABELS = Family(
    "labels",
    "source",
    "checker",
    "e2h.labels",
    Labels,
    {
        "checker": CheckerLabels,
        "prm800k": Prm800kLabels,
        "shepherd": ShepherdLabels,
        "prmbench": PrmBenchLabels,
        "monte_carlo": MonteCarloLabels,
        "people": PeopleLabels,
    },
)
