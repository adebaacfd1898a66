"""Inputs and key of the stage of step labels: only what the chosen sources use."""

from pathlib import Path
from typing import Any

import pytest

from assets.easy_step_labels import easy_step_labels  # registers the stage
from e2h_pipeline.recipe import Recipe, RecipeSlice, with_inner
from e2h_pipeline.registry import LABEL_SOURCES, SOLUTION_SOURCES
from e2h_pipeline.stages.spec import STAGES, narrow

STAGE = STAGES[easy_step_labels.key.path[-1]]
PEOPLE, SHEPHERD = {"source": "prm800k"}, {"source": "shepherd", "weight": 0.5}
CHECKER, MONTE_CARLO = {"source": "checker"}, {"source": "monte_carlo"}
ACTIVE, NON_CAUSAL, WEAK = ({"source": word} for word in ("active", "non_causal", "weak_to_strong"))


def view(*sources: dict[str, Any], **sampling: Any) -> RecipeSlice:
    recipe = Recipe.model_validate({"name": "x", "labels": list(sources), "sampling": sampling})
    return narrow(recipe, STAGE.sections)


@pytest.mark.parametrize(
    ("sources", "inputs", "draws"),
    [
        ([PEOPLE], {"easy_problems"}, False),
        ([PEOPLE, SHEPHERD], {"easy_problems"}, False),
        ([CHECKER], {"easy_problems", "easy_samples"}, False),
        ([PEOPLE, CHECKER], {"easy_problems", "easy_samples"}, False),
        ([MONTE_CARLO], {"easy_problems", "easy_samples", "sft_policy"}, True),
        ([PEOPLE, MONTE_CARLO], {"easy_problems", "easy_samples", "sft_policy"}, True),
        ([ACTIVE], {"easy_problems", "easy_samples", "base_model"}, False),
        ([{**ACTIVE, "of": PEOPLE}], {"easy_problems", "base_model"}, False),
        (
            [{**ACTIVE, "of": "monte_carlo"}],
            {"easy_problems", "easy_samples", "sft_policy", "base_model"},
            True,
        ),
        ([{**ACTIVE, "selection": "uniform"}], {"easy_problems", "easy_samples"}, False),
        ([{**ACTIVE, "training": {"init": "sft"}}], {"easy_problems", "easy_samples", "sft_policy"}, False),
        ([NON_CAUSAL], {"easy_problems", "easy_samples", "base_model"}, False),
        ([WEAK], {"easy_problems", "easy_samples", "base_model"}, False),
        ([{**WEAK, "labeller": "truth"}], {"easy_problems", "easy_samples"}, False),
        (
            [{**WEAK, "form": "hard"}],
            {"easy_problems", "easy_samples", "base_model", "hard_questions", "sft_policy"},
            True,
        ),
    ],
)
def test_labels_wait_for_what_their_sources_read(
    sources: list[dict[str, Any]], inputs: set[str], draws: bool
) -> None:
    found = view(*sources)
    assert set(STAGE.inputs(found)) == inputs
    assert STAGE.samples(found) == draws
    behind = set(STAGE.code_behind(found, "transformers"))
    words = {options.source for options in with_inner(found.labels)}
    assert {name for name in behind if name.startswith("labels.source")} == {
        f"labels.source={word}" for word in words
    }
    assert ("engine=transformers" in behind) == draws


def test_how_completions_are_drawn_matters_only_where_they_are_drawn() -> None:
    usual, other = view(CHECKER).as_dict(), view(CHECKER, temperature=0.1).as_dict()
    assert usual == other
    drawn, otherwise = view(MONTE_CARLO), view(MONTE_CARLO, temperature=0.1, samples=99)
    assert (drawn.sampling.temperature, otherwise.sampling.temperature) == (0.7, 0.1)
    assert drawn.sampling.samples == otherwise.sampling.samples


def test_files_are_in_the_key_by_source(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.jsonl").write_text(name)
    fingerprint = STAGE.external
    assert fingerprint is not None
    both = fingerprint(
        view(*({**PEOPLE, "path": str(tmp_path / n / "labels.jsonl")} for n in ("one", "two")))
    )
    assert list(both) == ["1 prm800k", "2 prm800k"]
    assert both["1 prm800k"]["labels.jsonl"] != both["2 prm800k"]["labels.jsonl"]
    assert fingerprint(view(CHECKER, MONTE_CARLO)) == {}
    one = {**PEOPLE, "path": str(tmp_path / "one" / "labels.jsonl")}
    inner = fingerprint(view({**ACTIVE, "of": one}, CHECKER))
    assert inner == {"1 active, prm800k": both["1 prm800k"]}


@pytest.mark.parametrize("registry", [LABEL_SOURCES, SOLUTION_SOURCES])
def test_sources_that_read_no_files_say_so(registry: Any) -> None:
    for word in {"checker", "monte_carlo", "reference"} & set(registry.words()):
        source = registry.load(word)()
        assert source.files(None) == []
        source.read(None)
