"""What the sample pool waits for: evaluator and labels only if the recipe uses them while drawing, and
a policy only if one draws."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from assets.benchmark_samples import benchmark_samples
from e2h_pipeline import registry
from e2h_pipeline.recipe import Recipe, RecipeSlice, Samples, section
from e2h_pipeline.stages.spec import STAGES, narrow

POOL = STAGES[benchmark_samples.key.to_user_string()]


class Guided:
    """A search method of an installed package that uses the evaluator."""

    needs_scorer = True


class Told(Samples):
    """Fields of a source of samples of an installed package."""

    language: str = "en"


class Telling:
    """A source of samples of an installed package, which draws nothing."""

    Options = Told

    def files(self, options: Told) -> list[Path]:
        return []


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the source `telling`, like an installed package."""
    monkeypatch.setitem(sys.modules, "telling_samples", sys.modules[__name__])
    for module in (registry, section):
        monkeypatch.setattr(
            module,
            "installed",
            lambda group: {"telling": "telling_samples:Telling"} if group == "e2h.samples" else {},
        )
    monkeypatch.setattr(section, "options_of", lambda group, word: Told)


@pytest.mark.usefixtures("telling")
def test_every_field_of_a_source_of_samples_shapes_its_pool() -> None:
    def view(**fields: str) -> RecipeSlice:
        samples = {"source": "telling", **fields}
        recipe = Recipe.model_validate({"name": "toy", "scope": "reranking", "samples": samples})
        return narrow(recipe, POOL.sections)

    assert POOL.inputs(view()) == ("benchmark_questions",) and not POOL.samples(view())
    assert view(language="de").as_dict() != view().as_dict()
    with pytest.raises(ValueError, match="set scope: reranking"):
        Recipe.model_validate({"name": "toy", "samples": {"source": "telling"}})


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the word `guided`, like an installed package."""
    monkeypatch.setitem(sys.modules, "guided_search", sys.modules[__name__])
    for module in (registry, section):
        monkeypatch.setattr(
            module,
            "installed",
            lambda group: {"guided": "guided_search:Guided"} if group == "e2h.search" else {},
        )
    monkeypatch.setattr(section, "options_of", lambda group, word: None)


@pytest.mark.usefixtures("guided")
@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, ()),
        ({"early_stop": {"enabled": True}}, ("easy_evaluator", "easy_step_labels")),
        ({"search": {"method": "guided"}}, ("easy_evaluator",)),
    ],
)
def test_the_pool_waits_for_an_evaluator_only_where_it_asks_one(
    fields: dict[str, object], more: tuple[str, ...]
) -> None:
    recipe = narrow(Recipe.model_validate({"name": "toy", **fields}), POOL.sections)
    assert POOL.inputs(recipe) == ("benchmark_questions", "sft_policy", *more)
