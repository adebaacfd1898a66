"""`e2h init`: the file that it writes is a recipe whatever was asked for, and it asks on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_experiment import e2h, environment

from e2h_pipeline.recipe import Recipe, RecipeError
from e2h_pipeline.recipe.draft import draft

_FIELDS = (
    "seed",
    "rl.algorithm",
    "rl.updates",
    "reward.kind",
    "reward.training.epochs",
    "labels.source",
    "base.model",
)
_VALUES = st.sampled_from(
    ["1", "0.5", "dpo", "orm", "monte_carlo", "Qwen/Qwen2.5-0.5B", "null", "yes", "1,2"]
)


@given(
    fields=st.dictionaries(st.sampled_from(_FIELDS), _VALUES | st.text(min_size=1, max_size=9), max_size=4),
    description=st.text(max_size=40),
)
def test_a_draft_is_a_recipe_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str], description: str
) -> None:
    folder = tmp_path_factory.mktemp("recipes", numbered=True)
    try:
        text = draft("mine", "ladder", description, fields, [folder])
    except RecipeError as error:
        assert str(folder) not in str(error) and "/tmp" not in str(error)
        return
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    recipe = Recipe.from_key("mine", [folder])
    assert recipe.description == description
    for field in fields.keys() & {"rl.algorithm", "reward.kind", "base.model"}:
        section, name = field.split(".")
        assert getattr(getattr(recipe, section), name) == fields[field]


def test_arguments_alone_write_a_file_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    fields = ["rl.algorithm=dpo", "problems.easy_levels=1,2", "base.model=Qwen/Qwen2.5-0.5B"]
    done = e2h(home, "init", "mine", *fields, "--description", "Fewer levels: two.")
    assert done.returncode == 0, done.stderr
    file = home / "recipes" / "mine.yaml"
    assert done.stdout.startswith(f"{file}\n")
    assert file.read_text() == (
        'extends: ladder\ndescription: "Fewer levels: two."\nrl: {algorithm: dpo}\nproblems: {easy_levels: [1, 2]}\n'
        "base: {model: Qwen/Qwen2.5-0.5B}\n"
    )
    again = e2h(home, "init", "mine")
    assert again.returncode == 1 and "there already" in again.stderr
    wrong = e2h(home, "init", "other", "rl.klx=1", "sed=2")
    assert wrong.stderr.splitlines() == [
        "e2h: no field 'rl.klx'; did you mean 'kl'?",
        "e2h: no field 'sed'; did you mean 'seed'?",
    ]
    assert "NAME" in e2h(home, "init").stderr  # no terminal: nobody to ask
    assert [path.name for path in file.parent.iterdir()] == ["mine.yaml"]


def test_a_terminal_is_asked_until_the_answers_are_a_recipe(tmp_path: Path) -> None:
    answers = ["Bad Name", "mine", "laddr", "ladder", "Mine.", "", "", "monte_carlo", "ormm", "orm", "rest"]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "e2h_pipeline.cli.app", "init"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(tmp_path / "home")
    ) as process:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        said = b""
        try:
            while chunk := os.read(ours, 4096):
                said += chunk
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    text = said.decode()
    assert process.returncode == 0, text
    assert "did you mean 'ladder'" in text and "did you mean 'orm'" in text
    recipe = Recipe.from_key("mine", [tmp_path / "home" / "recipes"])
    assert (recipe.labels[0].source, recipe.reward.kind, recipe.rl.algorithm) == (
        "monte_carlo",
        "orm",
        "rest",
    )
    assert re.search(r"Kind of evaluator \[prm\]", text)
