"""Tables of results on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.cli import view
from e2h_pipeline.cli.view import print_results
from e2h_pipeline.recipe import LadderProblems


def rows(groups: list[str], recipe: str = "ladder") -> list[dict[str, Any]]:
    return [
        {
            "recipe": recipe,
            "benchmark": "B",
            "grader": "exact/1",
            "policy": "self_play",
            "method": "weighted-vote",
            "aggregation": "soft_min",
            "n": 4,
            "levels": group,
            "accuracy": 0.5,
            "ci_low": 0.4,
            "ci_high": 0.6,
        }
        for group in groups
    ]


def test_a_policy_whose_training_a_guard_stopped_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = [
        {**row, "policy": "rl", "stopped": "stopped after 3 updates: kl [/] is 9"} for row in rows(["hard"])
    ]
    print_results([*rows(["hard"]), *stopped])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "weighted-vote" in line] == ["self_play", "rl*"]
    assert "* ladder: rl stopped after 3 updates: kl [/] is 9" in lines
    print_results(rows(["hard"]))
    assert "*" not in capsys.readouterr().out


def heads(text: str) -> list[str]:
    return next(line for line in text.splitlines() if "policy" in line).split()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "_PIPE_WIDTH", 400)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("count", [3, 7])
def test_levels_are_those_of_the_rows(capsys: pytest.CaptureFixture[str], count: int) -> None:
    levels = [str(level) for level in range(1, count + 1)]
    print_results(rows(["all", "0", *reversed(levels), "hard", "easy"]))
    shown = capsys.readouterr().out
    assert heads(shown) == ["policy", "method", "N", *levels, "easy", "hard", "all"]
    assert "weighted-vote soft_min" in shown


def test_levels_go_by_the_names_of_their_domain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LadderProblems, "level_names", ("novice", "[bold]adept", "expert"))
    print_results(rows(["1", "2", "3", "all"]))
    assert heads(capsys.readouterr().out) == [
        "policy",
        "method",
        "N",
        "novice",
        "[bold]adept",
        "expert",
        "all",
    ]


@pytest.mark.parametrize("recipe", ["mean of 3", "gone/seed=1", ""])
def test_results_stay_readable_without_their_recipe(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    print_results(rows(["1", "2", "all"], recipe))
    assert heads(capsys.readouterr().out)[-3:] == ["1", "2", "all"]
