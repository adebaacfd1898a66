"""Whether an experiment's numbers count: the supervision firewall's verdict, and strictness.

A leak marks every number of an experiment. There are two sources. Manifests: something that trains
or selects was made from gold answers. Dagster's records: the latest evaluation of a check of the
firewall (`assets/checks.py`) failed, even if its asset was made again since without the check.

An experiment that is not strict (a ceiling, a control) may see hard answers. Its numbers count, and
are marked wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2h_pipeline.artifacts.difference import changes
from e2h_pipeline.artifacts.lineage import Node, ancestors
from e2h_pipeline.recipe import FAMILIES, Recipe, RecipeError
from e2h_pipeline.registry import DOMAINS
from e2h_pipeline.stages.findings import graph_findings, manifest_findings, roles
from e2h_pipeline.stages.names import FIREWALL_CHECKS
from resources.ledger import Ledger

METRIC_STAGES = ("benchmark_metrics", "rerank_metrics")
"""Stages with a metrics.parquet, most complete first."""
_SURE_AUDITS = ("problem_source", "gold_answers", *METRIC_STAGES)
_SURE_SPLIT = ("easy_problems", "hard_questions", "benchmark_questions")
_SHOWN = 3


@dataclass(frozen=True)
class Standing:
    """The verdict on an experiment.

    Attributes:
        strict: nothing that trains or selects may have seen a hard answer.
        leaks: what the firewall found, in words; empty where all is well.
        outdated: how the recipe differs today from the one behind the numbers; empty where it does
            not.
    """

    strict: bool = True
    leaks: tuple[str, ...] = ()
    outdated: str = ""

    def as_row(self) -> dict[str, Any]:
        """For tables and JSON."""
        return {"strict": self.strict, "leaks": list(self.leaks), "outdated": self.outdated}

    @property
    def note(self) -> str:
        """A few words beside a number; empty for a strict experiment without leaks."""
        if self.leaks:
            return "LEAK"
        return "" if self.strict else "not strict"


def failed_checks(ledger: Ledger, keys: Sequence[str]) -> dict[str, list[str]]:
    """Experiment -> failed checks of the firewall, in words. A few queries for any number of
    experiments."""
    return ledger.failed_checks(FIREWALL_CHECKS, keys)


def manifest_leaks(nodes: Sequence[Node]) -> list[str]:
    """What was made from gold answers and must not have been, by the manifests behind nodes."""
    behind = [made for node in nodes for made in ancestors(node)]
    if not manifest_findings(behind, _SURE_AUDITS, _SURE_SPLIT):
        return []  # all stages need not be loaded, which takes seconds
    from e2h_pipeline.orchestration.planning import stage_order
    from e2h_pipeline.stages.spec import STAGES

    stage_order()  # fills STAGES
    return manifest_findings(behind, *roles(STAGES))


def input_leaks(inputs: Mapping[str, Collection[str]]) -> list[str]:
    """`manifest_leaks` of one experiment, by the inputs of each of its stages."""
    from e2h_pipeline.orchestration.planning import stage_order
    from e2h_pipeline.stages.spec import STAGES

    stage_order()  # fills STAGES
    return graph_findings(inputs, *roles(STAGES))


def was_strict(recipe: Mapping[str, Any] | None, behind: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an experiment is strict, by its recipe and by what fed its numbers: an artifact made
    under an earlier recipe keeps what it has seen.

    Args:
        recipe: all its values; None where it is lost.
        behind: the slices of recipes that shaped the artifacts behind its numbers.
    """
    return bool((recipe or {}).get("strict", True)) and not any(
        _shows_hard_answers(one) or _judged_by_others(one) for one in behind
    )


def outdated(key: str, made_with: Mapping[str, Any] | None, folders: Sequence[Path]) -> str:
    """How the recipe of a key differs today from the one that its numbers were made with.

    Args:
        made_with: all values of the latest materialized recipe; None where there is none.
        folders: the user's own recipes.
    """
    if made_with is None:
        return ""
    try:
        now = Recipe.from_key(key, folders).slice(Recipe.model_fields).as_dict()
    except RecipeError as error:
        return f"its recipe cannot be read any more ({error})"
    found = [f"{one.field} is {one.second} now, {one.first} here" for one in changes(made_with, now)]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"its recipe was edited since: {'; '.join(found[:_SHOWN])}{more}; run: e2h run {key}" if found else ""
    )


def _judged_by_others(recipe: Mapping[str, Any]) -> bool:
    """Whether the evaluator of this slice of a recipe was trained on more than easy labels."""
    kind, family = (recipe.get("reward") or {}).get("kind"), FAMILIES["reward"]
    if kind not in family.words():  # no slice of it, or of a package that is gone
        return False
    return not getattr(family.member(kind), "easy_only", True)


def _shows_hard_answers(recipe: Mapping[str, Any]) -> bool:
    """Whether a stage with this slice of a recipe could see answers that a strict recipe hides."""
    problems = recipe.get("problems") or {}
    if problems.get("hard_answers"):
        return True
    source, levels = problems.get("source"), problems.get("easy_levels") or ()
    if source not in DOMAINS.words():  # of an earlier version, or of a package that is gone
        return False
    return not set(levels) <= set(DOMAINS.load(source).supervisable)
