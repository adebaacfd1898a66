"""One folder for all output, wherever the command is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2h_pipeline.artifacts.home import home, recipe_folders


def test_the_variable_wins_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("E2H_HOME", "here")
    assert home() == tmp_path / "here"


def test_without_it_the_project_holds_it_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2H_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert home() == Path(__file__).resolve().parents[2] / ".e2h"
    assert recipe_folders(home()) == [home() / "recipes"]
