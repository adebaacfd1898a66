"""Registries: every entry exists, is light to import and fits its protocol; recipes know exactly
these words."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from e2h_pipeline import registry
from e2h_pipeline.recipe import FAMILIES, Recipe
from e2h_pipeline.recipe.sections.evaluation import AGGREGATIONS, GRADERS
from e2h_pipeline.recipe.sections.reward import LAYOUTS
from e2h_pipeline.registry import ENGINE, REGISTRIES, Part, Registry, RegistryError, chosen, only

HEAVY = ("torch", "transformers", "vllm", "datasets", "mlflow", "ray", "sympy", "matplotlib")
OWN = [found for found in REGISTRIES.values() if isinstance(found, Registry)]
ENTRIES = [(found, word) for found in OWN for word in found.entries]


@pytest.mark.parametrize(("found", "word"), ENTRIES, ids=lambda value: getattr(value, "field", value))
def test_every_entry_loads_and_explains_itself(found: Registry, word: str) -> None:
    entry = found.load(word)
    assert inspect.getdoc(entry if inspect.isclass(entry) or inspect.isfunction(entry) else type(entry))
    assert len(found.code(word).version()) == 16


def test_entries_are_light() -> None:
    """Plans load them in a server's process."""
    code = (
        "import sys; from e2h_pipeline.registry import REGISTRIES\n"
        "for found in REGISTRIES.values():\n    for word in found.words(): found.load(word)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_words_are_exactly_those_a_recipe_accepts() -> None:
    for family in FAMILIES.values():
        field = f"{family.section}.{family.tag}"
        assert set(REGISTRIES[field].words()) == set(family.words()), field
    assert set(registry.AGGREGATIONS.entries) == set(AGGREGATIONS)
    assert set(registry.GRADERS.entries) == set(GRADERS)
    assert set(registry.LAYOUTS.entries) == set(LAYOUTS)


def test_parts_are_attributes_of_entries() -> None:
    for part in (found for found in REGISTRIES.values() if isinstance(found, Part)):
        for word in part.words():
            part.load(word)
            assert part.code(word).version()
    assert registry.STEP_CHECKERS.load("ladder") is not None
    assert registry.STEP_CHECKERS.load("math") is None


def test_an_unknown_word_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RegistryError, match=r"rl\.algorithm: no 'reinforce'; there are ppo, grpo"):
        registry.ALGORITHMS.load("reinforce")


def test_a_stage_uses_only_what_it_declares() -> None:
    with only(["rl.algorithm"]):
        registry.ALGORITHMS.load("ppo")
        with pytest.raises(RegistryError, match=r"uses the methods of reward\.kind without saying so"):
            registry.EVALUATOR_KINDS.load("prm")
        with pytest.raises(RegistryError, match="step_checker without saying so"):
            registry.STEP_CHECKERS.load("ladder")
    registry.EVALUATOR_KINDS.load("prm")


def test_what_a_recipe_chooses() -> None:
    recipe = Recipe.from_key("ladder/rl.algorithm=rest/rerank.aggregations=min,mean")
    assert chosen("rl.algorithm", recipe, "vllm") == ("rest",)
    assert chosen("rerank.aggregations", recipe, "vllm") == ("min", "mean")
    assert chosen("labels.source", recipe, "vllm") == ("checker",)
    assert chosen("problems.source/reader", recipe, "vllm") == ("ladder",)
    assert chosen(ENGINE, recipe, "vllm") == ("vllm",)
