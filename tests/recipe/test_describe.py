"""The full values of a recipe, and the page that is generated from the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from e2h_pipeline.cli.app import app
from e2h_pipeline.cli.shared import CommandError
from e2h_pipeline.recipe import FAMILIES, Recipe, RecipeError
from e2h_pipeline.recipe.describe import recipes_page, resolved


def test_every_field_of_every_method_is_on_the_page_with_its_meaning() -> None:
    page = recipes_page()
    for name, family in FAMILIES.items():
        for word, member in family.members.items():
            assert f"`{name}.{family.tag}={word}`" in page
            for field, info in member.model_fields.items():
                assert info.description, f"{name}.{field} of {word} says nothing"


def test_a_recipe_resolved_tells_values_defaults_and_meanings() -> None:
    lines = {line.name: line for line in resolved(Recipe.from_key("ladder/rl.kl=0.07"))}
    kl = lines["rl.kl"]
    assert (kl.value, kl.default, kl.changed) == (0.07, 0.01, True)
    assert kl.meaning.startswith("Coefficient of the per-token KL")
    assert lines["labels.source"].value == "checker" and not lines["labels.limit"].changed


def run(*arguments: str) -> str:
    """The output of `e2h recipes`."""
    done = CliRunner().invoke(app, ["recipes", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_command_lists_shows_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    assert "llemma-7b" in run()
    assert "running_minimum" in run("ladder/rl.kl=0.07") and '"kl": 0.07' in run(
        "ladder/rl.kl=0.07", "--json"
    )
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("description: mine\nextends: ladder\nrl: {kl: 0.1}\n")
    assert "can be used" in run("--check", str(good))
    bad.write_text("description: mine\nextends: ladder\nrl: {kll: 0.1}\n")
    with pytest.raises(RecipeError, match=r"no field 'rl\.kll'; did you mean 'kl'"):
        run("--check", str(bad))
    with pytest.raises(CommandError, match="no such file"):
        run("--check", str(tmp_path / "none.yaml"))
