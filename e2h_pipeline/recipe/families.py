"""The sections of a recipe that are a union keyed by the method's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from e2h_pipeline.recipe.section import Family
from e2h_pipeline.recipe.sections.labels import LABELS, Labels
from e2h_pipeline.recipe.sections.problems import PROBLEMS, SOLUTIONS, Problems, Solutions
from e2h_pipeline.recipe.sections.reward import REWARD, AnyEvaluator
from e2h_pipeline.recipe.sections.rl import RL, Rl
from e2h_pipeline.recipe.sections.samples import SAMPLES, Samples
from e2h_pipeline.recipe.sections.search import SEARCH, SEARCHES, Search

FAMILIES: Mapping[str, Family] = {
    family.section: family for family in (PROBLEMS, SOLUTIONS, LABELS, REWARD, SAMPLES, SEARCH, SEARCHES, RL)
}


def _label_sources(value: Any) -> Any:
    """One source may be written without a list around it."""
    if isinstance(value, Mapping | Labels):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("labels is one source, or a list of sources with weights")
    return value


def _searches(value: Any) -> Any:
    """One search may be written without a list around it."""
    if isinstance(value, Mapping | Search):
        return [value]
    if not isinstance(value, list | tuple):
        raise ValueError("searches is a list of searches")
    return value


AnyProblems = Annotated[SerializeAsAny[Problems], BeforeValidator(PROBLEMS.parse)]
AnySolutions = Annotated[SerializeAsAny[Solutions], BeforeValidator(SOLUTIONS.parse)]
AnyReward = Annotated[SerializeAsAny[AnyEvaluator], BeforeValidator(REWARD.parse)]
AnySamples = Annotated[SerializeAsAny[Samples], BeforeValidator(SAMPLES.parse)]
AnySearch = Annotated[SerializeAsAny[Search], BeforeValidator(SEARCH.parse)]
AnyRl = Annotated[SerializeAsAny[Rl], BeforeValidator(RL.parse)]
LabelSources = Annotated[
    tuple[Annotated[SerializeAsAny[Labels], BeforeValidator(LABELS.parse)], ...],
    BeforeValidator(_label_sources),
]
Searches = Annotated[
    tuple[Annotated[SerializeAsAny[Search], BeforeValidator(SEARCHES.parse)], ...],
    BeforeValidator(_searches),
]
