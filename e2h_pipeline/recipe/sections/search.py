"""The search method of a pool of samples, and the searches that are compared with each other."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from e2h_pipeline.recipe.section import Family, Section

_METHOD = "The search method."


class Search(Section):
    """How samples of a question are found; `sampling` says how tokens are drawn."""

    prunes: ClassVar[bool] = False
    """It drops beginnings itself, so early stop has nothing to give up."""

    reward_kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of evaluator that it can ask; empty for all."""

    method: str = Field("independent", description=_METHOD)

    @property
    def together(self) -> int:
        """Samples that are found together: N is a multiple of it, and grows by it."""
        return 1

    @property
    def label(self) -> str:
        """Its name in tables: the method, and those fields that differ from their defaults."""
        fields = type(self).model_fields
        own = ((name, getattr(self, name)) for name in fields if name != "method")
        changed = (f"{name}={value}" for name, value in own if value != fields[name].default)
        return " ".join([self.method, *changed])


class IndependentSearch(Search):
    """Samples drawn independently of each other, without an evaluator."""

    method: Literal["independent"] = Field("independent", description=_METHOD)


class GuidedSearch(Search):
    """Searches step by step; the easy evaluator scores each beginning."""

    prunes: ClassVar[bool] = True

    aggregation: Literal["min", "product", "mean", "last"] = Field(
        "min", description="How the step scores of a beginning become its score."
    )


class Looking(GuidedSearch):
    """Keeps the best of several next steps."""

    expansions: int = Field(4, ge=1, description="Next steps drawn for each beginning.")
    lookahead: int = Field(
        0,
        ge=0,
        description="Greedy steps drawn behind each next step before it is scored, for the score alone.",
    )


class BeamSearch(Looking):
    """Beam search: of all next steps of its beams, the best `beams` go on."""

    method: Literal["beam"] = Field("beam", description=_METHOD)
    beams: int = Field(
        4,
        ge=1,
        description="Beginnings kept after each step: the samples of one search. N is a multiple of it: several searches.",
    )

    @property
    def together(self) -> int:
        """The beams."""
        return self.beams


class DvtsSearch(Looking):
    """Diverse verifier tree search: every sample is the best path of a tree of its own."""

    method: Literal["dvts"] = Field("dvts", description=_METHOD)


class ParticleSearch(GuidedSearch):
    """Particle filtering: after each step particles are drawn again by weight."""

    method: Literal["particle"] = Field("particle", description=_METHOD)
    particles: int = Field(
        8, ge=1, description="Particles of one filter: its samples. N is a multiple of it: several filters."
    )
    weight_temperature: float = Field(
        1.0, gt=0, description="A particle's weight is the odds of its score to the power of one over this."
    )

    @property
    def together(self) -> int:
        """The particles."""
        return self.particles


class QFilterSearch(Search):
    """Independent samples, dropped at a token whose Q value is too low (Nath et al. 2024)."""

    prunes: ClassVar[bool] = True
    reward_kinds: ClassVar[tuple[str, ...]] = ("goal_conditioned",)

    method: Literal["q_filter"] = Field("q_filter", description=_METHOD)
    threshold: float = Field(
        0.0, ge=-1, le=1, description="Q below which a sample is dropped (the paper's: 0)."
    )
    every: int = Field(8, ge=1, description="Tokens between two looks at a sample.")


class SearchComparison(Section):
    """How the `searches` of a recipe are compared at equal compute. It makes `search_metrics`."""

    samples: int = Field(16, ge=1, description="Samples per question of each search.")
    independent: int = Field(
        64,
        ge=1,
        description="Independent samples per question, which the searches are compared with: enough to cost as much.",
    )
    policy: Literal["sft", "rl"] = Field("sft", description="The policy that is searched.")


SEARCH = Family(
    "search",
    "method",
    "independent",
    "e2h.search",
    Search,
    {
        "independent": IndependentSearch,
        "beam": BeamSearch,
        "dvts": DvtsSearch,
        "particle": ParticleSearch,
        "q_filter": QFilterSearch,
    },
)
SEARCHES = replace(SEARCH, section="searches")
"""Searches to compare: a list of them."""
