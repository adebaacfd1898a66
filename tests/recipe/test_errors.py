"""All that is wrong with a recipe at once, each error with its file, field and the nearest name; and
where the values of a good one come from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.recipe import Recipe, RecipeError, plugins, sources_of
from e2h_pipeline.recipe.describe import resolved

# A field with a wrong name or value, and a part of what is said about it.
MISTAKES: Mapping[str, tuple[Any, str]] = {
    "sed": ("3", "no field 'sed'; did you mean 'seed'?"),
    "kl": ("0.1", "no field 'kl'; did you mean 'rl.kl'?"),
    "scope": ("pipelin", "not 'pipelin'; did you mean 'pipeline'?"),
    "sft.epohcs": ("3", "no field 'sft.epohcs'; did you mean 'epochs'?"),
    "sft.batch_size": ("many", "sft.batch_size: "),
    "reward.training.epcohs": ("3", "no field 'reward.training.epcohs'; did you mean 'epochs'?"),
    "reward.training.learning_rate": ("fast", "reward.training.learning_rate: 'fast' is not a finite number"),
    "labels.sorce": ("x", "no field 'labels.0.sorce'; did you mean 'source'?"),
    "rl.klx": ("1", "no field 'rl.klx'; did you mean 'kl'?"),
    "rl.rest.samples": ("1", "rl.rest.samples is now rl.samples (with rl.algorithm=rest)"),
    "samples.path": ("x", "path is a field of source=file"),
    "problems.easy_levels": (["7"], "problems.easy_levels: "),
    "search": ("beam", "search: a mapping of fields is expected"),
    "searches": ([{"method": "bem"}], "searches.0: method: no 'bem'; did you mean 'beam'?"),
}


def _write(path: Path, extends: str, fields: Mapping[str, Any]) -> None:
    """A recipe file with some dotted fields."""
    data: dict[str, Any] = {"extends": extends}
    for field, value in fields.items():
        *parents, leaf = field.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    path.write_text(yaml.safe_dump(data), encoding="utf-8")


@given(
    places=st.dictionaries(st.sampled_from(sorted(MISTAKES)), st.sampled_from(["mine", "below"]), min_size=1)
)
def test_every_mistake_is_told_with_its_file(
    tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("recipes", numbered=True)
    for name, extends in (("mine", "below"), ("below", "ladder")):
        own = {field: MISTAKES[field][0] for field, place in places.items() if place == name}
        _write(folder / f"{name}.yaml", extends, own)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_key("mine", [folder])
    told = [str(line) for line in caught.value.args]
    for field, place in places.items():
        start, said = f"recipe key 'mine': {folder / place}.yaml: ", MISTAKES[field][1]
        assert any(line.startswith(start) and said in line for line in told), (field, told)
    assert len(told) == len(places), told


def test_what_sections_ask_of_each_other_is_told_at_once_and_only_of_a_recipe_that_reads() -> None:
    key = "ladder/problems.hard_answers=true/problems.easy_levels=5,/search.method=dvts/sampling.samples=7"
    with pytest.raises(RecipeError) as caught:
        Recipe.from_key(key)
    told = str(caught.value)
    assert (
        len(caught.value.args) == 2 and "level 5 in problems.easy_levels" in told and "hard_answers" in told
    )
    with pytest.raises(RecipeError) as caught:
        Recipe.from_key(f"{key}/seed=x")
    assert len(caught.value.args) == 1 and "seed" in str(caught.value)


FIELDS = ("seed", "sft.epochs", "rl.updates", "labels.limit", "problems.validation")


@given(
    layers=st.lists(
        st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 50), max_size=3), min_size=1, max_size=3
    ),
    key=st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 50), max_size=2),
)
def test_where_a_value_comes_from(
    tmp_path_factory: pytest.TempPathFactory, layers: list[dict[str, int]], key: dict[str, int]
) -> None:
    folder, below = tmp_path_factory.mktemp("recipes", numbered=True), "llemma-7b"
    for number, fields in enumerate(layers):
        _write(folder / f"own{number}.yaml", below, {name: str(value) for name, value in fields.items()})
        below = f"own{number}"
    whole = "/".join([below, *(f"{field}={value}" for field, value in sorted(key.items()))])
    lines = {
        line.name: line for line in resolved(Recipe.from_key(whole, [folder]), sources_of(whole, [folder]))
    }
    for field in FIELDS:
        files = [f"{folder}/own{number}.yaml" for number, own in enumerate(layers) if field in own]
        expected = whole if field in key else files[-1] if files else None
        values = [own[field] for own in [*layers, key] if field in own]
        assert expected is None or (lines[field].source, lines[field].value) == (expected, values[-1])
        assert expected or lines[field].source in (
            "",
            str(lines["base.model"].source),
        )  # llemma-7b's own file


def test_a_method_left_behind_is_no_source(tmp_path: Path) -> None:
    """A file's field for PPO is dropped by a file above for ReST, and is a default for PPO again."""
    _write(tmp_path / "ppo.yaml", "ladder", {"rl.algorithm": "ppo", "rl.clip": "0.3", "rl.kl": "0.3"})
    _write(tmp_path / "rest.yaml", "ppo", {"rl.algorithm": "rest", "rl.when": {"ppo": {"gamma": "0.5"}}})
    key = "rest/rl.algorithm=ppo"
    lines = {
        line.name: line for line in resolved(Recipe.from_key(key, [tmp_path]), sources_of(key, [tmp_path]))
    }
    assert (lines["rl.clip"].source, lines["rl.algorithm"].source) == ("", key)
    assert lines["rl.gamma"].source == str(tmp_path / "rest.yaml")


def test_a_package_that_breaks_stops_only_the_recipes_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_method.py").write_text("def (", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = EntryPoint("broken", "broken_method:Method", "e2h.algorithms")
    monkeypatch.setattr(plugins, "entry_points", lambda: EntryPoints([found]))
    plugins.forget()
    try:
        with pytest.raises(RecipeError, match=r"'broken' \(e2h.algorithms\) cannot be loaded: SyntaxError"):
            Recipe.from_key("ladder/rl.algorithm=broken")
        assert Recipe.from_key("ladder").rl.algorithm == "ppo"
    finally:
        monkeypatch.undo()
        plugins.forget()
