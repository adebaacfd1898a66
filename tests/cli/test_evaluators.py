"""The evaluator that a command names: folders, specifications, ensembles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.cli.evaluators import find_evaluator, scorer
from e2h_pipeline.cli.shared import CommandError
from e2h_pipeline.rewards.outside.scorer import OutsideScorer
from e2h_pipeline.rewards.outside.skywork import Skywork
from e2h_pipeline.rewards.step_scorer import StepScorer

ASKED = [("1+2*2", "1+2=3\n\n3*2=6\n\n# Answer\n\n6", True), ("1-2", "1-2=6", False)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E2H_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def specification(folder: Path, value: Any) -> str:
    path = folder / "evaluator-of-mine.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_a_folder_is_ours_unless_its_config_says_otherwise(ladder_evaluator: Path, tmp_path: Path) -> None:
    found = find_evaluator(str(ladder_evaluator), "ladder")
    assert isinstance(found.open(), StepScorer) and found.labels is None and found.standing == {}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text('{"architectures": ["Qwen2ForPrmModel"]}')
    theirs = find_evaluator(str(tmp_path / "theirs"), None)
    opened = theirs.open()
    assert isinstance(opened, OutsideScorer) and isinstance(opened.layout, Skywork)
    with pytest.raises(CommandError, match="theirs"), scorer(theirs):
        pass


def test_an_ensemble_of_any_evaluators(ladder_evaluator: Path, ladder_policy: Path, tmp_path: Path) -> None:
    """One of ours, and one of others that asks the same network in another way."""
    theirs = {"model": str(ladder_evaluator), "layout": "trl"}
    alone = [
        find_evaluator(name, "ladder").open().step_probabilities(ASKED)
        for name in (str(ladder_evaluator), specification(tmp_path, theirs))
    ]
    assert [len(own) for own in alone[1]] == [3, 1] and abs(alone[0][0] - alone[1][0]).max() > 1e-3
    name = specification(tmp_path, {"ensemble": [str(ladder_evaluator), theirs], "rule": "min"})
    found = find_evaluator(name, "ladder")
    with scorer(found) as together:
        scores = together.step_probabilities(ASKED)
    for own, one, two in zip(scores, *alone, strict=True):
        assert own == pytest.approx([min(pair) for pair in zip(one, two, strict=True)])
    assert find_evaluator(name, "ladder").version == found.version
    other = specification(tmp_path, {"ensemble": [str(ladder_evaluator), theirs], "rule": "mean"})
    assert find_evaluator(other, "ladder").version != found.version


def test_the_version_changes_with_the_files(ladder_evaluator: Path, tmp_path: Path) -> None:
    shutil.copytree(ladder_evaluator, tmp_path / "e")
    before = find_evaluator(str(tmp_path / "e"), "ladder").version
    assert find_evaluator(str(tmp_path / "e"), "math").version != before
    (tmp_path / "e" / "evaluator.json").write_text('{"heading": "# Homework"}')
    assert find_evaluator(str(tmp_path / "e"), "ladder").version != before


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{", "not JSON"),
        ([], "has texts 'model' and 'layout', or a list 'ensemble'"),
        ({"model": "m"}, "has texts 'model' and 'layout'"),
        ({"model": "m", "layout": "gpt"}, "no 'gpt'; there are qwen-prm, math-shepherd"),
        ({"model": "m", "layout": "trl", "tag": 1}, "layout trl: no option 'tag'; there are separator"),
        ({"model": "m", "layout": "implicit"}, "option 'reference' is missing"),
        ({"model": "me/nowhere", "layout": "trl"}, "me/nowhere: no such folder, .* not found on the Hub"),
        ({"ensemble": ["a"]}, "'ensemble' names two evaluators or more"),
        ({"ensemble": ["a", "b"], "rule": "max"}, "'rule' is one of mean, min, disagreement"),
        ({"ensemble": [3, "b"]}, "member 0: a specification has"),
    ],
)
def test_a_specification_that_is_none_is_told(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        find_evaluator(specification(tmp_path, value), "ladder")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere\.json: No such file"):
        find_evaluator(str(tmp_path / "nowhere.json"), None)
