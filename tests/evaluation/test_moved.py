"""Changes of numbers, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2h_pipeline.evaluation.moved import moved_rows, only_in
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table, values_table
from e2h_pipeline.statistics.bootstrap import Bootstrap

EASY = (1, 2, 3)
BOOTSTRAP = Bootstrap(resamples=400)
GREEDY, VOTE = Method("sft", "greedy", 1), Method("sft", "weighted-vote", 8, "prm", "product")


def tables(
    values: dict[Method, list[float]], ids: str = "abcd", grader: str = "exact/1"
) -> tuple[list[dict[str, Any]], pa.Table]:
    board = Scoreboard(
        "TEST",
        grader,
        tuple(ids),
        np.array([1, 1, 5, 5]),
        {method: np.array(found) for method, found in values.items()},
    )
    return metrics_table(board, EASY, BOOTSTRAP).to_pylist(), values_table(board)


def moved(first: tuple[Any, pa.Table], second: tuple[Any, pa.Table]) -> dict[tuple[str, str], dict[str, Any]]:
    rows = moved_rows(first[0], second[0], (first[1], second[1]), EASY, BOOTSTRAP)
    return {(row["method"], row["levels"]): row for row in rows}


def test_the_difference_is_paired_by_problem() -> None:
    first = tables({GREEDY: [1, 0, 0, 0], VOTE: [1, 1, 1, 0]})
    second = tables({GREEDY: [1, 0, 1, 1], VOTE: [1, 1, 0, 1]})
    found = moved(first, second)
    assert found["greedy", "all"]["difference"] == pytest.approx(0.5)
    assert found["greedy", "hard"] == {
        **found["greedy", "hard"],
        "first": 0.0,
        "second": 1.0,
        "difference": 1.0,
        "ci_low": 1.0,  # every hard problem moved by one: all resamples agree
        "ci_high": 1.0,
        "problems": 2,
        "paired": True,
    }
    assert found["weighted-vote", "easy"]["difference"] == 0.0
    assert found["weighted-vote", "hard"]["ci_low"] == -1.0  # one up, one down: the interval includes zero
    assert found["weighted-vote", "hard"]["ci_high"] == 1.0


def test_the_order_of_problems_does_not_matter() -> None:
    first = tables({GREEDY: [1, 0, 0, 1]})
    second = tables({GREEDY: [0, 1, 1, 0]}, ids="badc")
    assert moved(first, second)["greedy", "all"]["difference"] == 0.0
    assert moved(first, second)["greedy", "all"]["ci_high"] == 0.0


@pytest.mark.parametrize("change", [{"ids": "abcx"}, {"grader": "math/2"}])
def test_other_problems_or_another_grader_give_no_interval(change: dict[str, str]) -> None:
    row = moved(tables({GREEDY: [1, 0, 0, 1]}), tables({GREEDY: [1, 1, 0, 1]}, **change))["greedy", "all"]
    assert row["difference"] == pytest.approx(0.25)
    assert (row["paired"], row["ci_low"], row["ci_high"]) == (False, None, None)


def test_another_kind_of_evaluator_is_the_same_measurement() -> None:
    other = Method("sft", "weighted-vote", 8, "orm", "product")
    found = moved(tables({VOTE: [1, 0, 0, 1]}), tables({other: [1, 1, 0, 1]}))
    assert found["weighted-vote", "all"]["paired"]


def test_what_only_one_has_is_named() -> None:
    first, second = tables({GREEDY: [1, 0, 0, 1], VOTE: [1, 0, 0, 1]}), tables({GREEDY: [1, 0, 0, 1]})
    assert only_in(first[0], second[0]) == ["sft weighted-vote product N=8"]
    assert only_in(second[0], first[0]) == []
    assert {row["method"] for row in moved(first, second).values()} == {"greedy"}
