"""The full values of a recipe, and the page that is generated from the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_experiment import e2h, new_home
from typer.testing import CliRunner

from e2h_pipeline.cli.app import app
from e2h_pipeline.cli.shared import CommandError
from e2h_pipeline.recipe import FAMILIES, Recipe
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
    bad.write_text("description: mine\nextends: ladder\nrl: {kll: 0.1}\nsed: 1\n")
    done = CliRunner().invoke(app, ["recipes", "--check", str(good), str(bad)])
    assert isinstance(done.exception, CommandError) and "1 of 2 recipe files" in str(done.exception)
    assert re.findall("did you mean '(.*)'", done.output) == ["kl", "seed"]
    with pytest.raises(CommandError, match="no such file"):
        run("--check", str(tmp_path / "none.yaml"))


def test_one_bad_file_disables_nothing_else(tmp_path: Path) -> None:
    """Whatever lies in the folder: the others are listed, shown and checked, and each error has its file."""
    home = new_home(tmp_path / "home", empty=True)
    folder = home / "recipes"
    (folder / "yaml.yaml").write_text("no: [recipe")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to("nowhere")
    (folder / "other.yml").write_text("extends: ladder\n")
    (folder / "Bad Name.yaml").write_text("extends: ladder\n")
    (folder / "child.yaml").write_text("extends: yaml\n")
    listed = e2h(home, "recipes")
    assert listed.returncode == 0 and "tiny" in listed.stdout and "llemma-7b" in listed.stdout
    assert listed.stdout.count("cannot be used") == 4
    shown = e2h(home, "recipes", "tiny")
    assert shown.returncode == 0 and re.search(r"rl\.updates +6 +tiny\.yaml ", shown.stdout)
    checked = e2h(home, "recipes", "--check")
    assert checked.returncode == 1 and checked.stderr.startswith("e2h: 7 of 8 recipe files cannot be used")
    assert len(re.findall(r"^/\S.*: cannot be used$", checked.stdout, re.MULTILINE)) == 7
    assert f"{folder / 'tiny.yaml'}: can be used; e2h run tiny" in checked.stdout


def test_errors_are_a_line_each_and_a_wrong_stage_is_told_before_dagster_is_there(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", empty=True)
    done = e2h(home, "run", "tiny/sed=1/seed=x")
    assert done.returncode == 1 and [line[:5] for line in done.stderr.splitlines()] == ["e2h: "] * 2
    done = e2h(home, "run", "tiny", "--select", "+sft_polcy,report")
    assert "no stage 'sft_polcy'; did you mean 'sft_policy'?; there are: recipe, " in done.stderr
    assert not done.stdout and not (home / "dagster").exists()
