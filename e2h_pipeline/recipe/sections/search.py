"""The search method of the pool of benchmark samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from e2h_pipeline.recipe.section import Family, Section


class Search(Section):
    """How samples of a question are found; `sampling` says how tokens are drawn."""

    method: str = Field("independent", description="The search method.")


class IndependentSearch(Search):
    """Samples drawn independently of each other, without an evaluator."""

    method: Literal["independent"] = Field("independent", description="The search method.")


SEARCH = Family("search", "method", "independent", "e2h.search", Search, {"independent": IndependentSearch})
