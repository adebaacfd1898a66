"""Tables of results on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.cli import view
from e2h_pipeline.cli.view import print_pooled, print_results
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


def test_what_the_labels_cost_stands_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    bought = {"easy_outcome_labels": {"exact/1": 7}, "easy_step_labels": {"1 people": 1500.4, "2 [/]": 5}}
    print_results([{**row, "labels_bought": bought} for row in rows(["hard", "all"])])
    line = next(x for x in capsys.readouterr().out.splitlines() if "labels bought" in x)
    assert line == (
        "ladder: labels bought: easy_outcome_labels 7 (exact/1), easy_step_labels 1,500 (1 people), "
        "easy_step_labels 5 (2 [/])"
    )
    print_results(rows(["hard"]))  # of a version that did not count
    assert "labels bought" not in capsys.readouterr().out


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


def test_results_over_seeds_show_the_seeds_and_do_not_tell_differences_of_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [{**row, "seeds": 3, "by_seed": {"1": 0.41, "2": 0.52, "3": 0.57}} for row in rows(["hard"])]
    print_pooled(few, [])
    shown = capsys.readouterr().out
    assert "ladder (3 seeds)" in shown and "50.0 [40.0, 60.0]" in shown and "41.0 52.0 57.0" in shown
    assert "3 seeds: differences between methods are not told below 5 seeds" in shown


def test_differences_over_seeds_are_marked_among_all_of_their_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    enough = [{**row, "seeds": 5, "by_seed": {str(s): 0.5 for s in range(5)}} for row in rows(["hard"])]
    difference = {
        "benchmark": "B",
        "first": "rl greedy, ladder",
        "second": "sft greedy",
        "n": 1,
        "levels": "hard",
        "difference": 0.05,
        "ci_low": 0.01,
        "ci_high": 0.09,
        "by_seed": {str(s): 0.01 * s for s in range(5)},
        "holm": 0.0421,
    }
    print_pooled(enough, [difference, {**difference, "levels": "all"}])
    shown = capsys.readouterr().out
    assert "not told" not in shown
    assert "+5.0 [+1.0, +9.0] p 0.042" in shown and "+0.0 +1.0 +2.0 +3.0" in shown
    assert "among all 2 comparisons" in shown
