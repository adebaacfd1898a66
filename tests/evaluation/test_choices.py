"""Which solution each method chose, by hand: four problems of the tiny world, and zero weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.choices import (
    BEST,
    MAJORITY,
    TRUSTED_WRONG,
    UNCHOSEN_RIGHT,
    WEIGHTED,
    _chosen,
    choices_schema,
)

SIGMOID_2 = 1 / (1 + np.exp(-2.0))


def chosen(classes: list[int], right: list[bool], scores: list[float]) -> dict[int, list[str]]:
    logs = np.log(np.array(scores))
    return _chosen(np.array(classes), np.array(right), logs, logs)


def test_the_world_by_hand(world: Path, rerank: Callable[..., dict[str, Any]]) -> None:
    rerank()
    table = read_table(world / "rerank" / "choices.parquet")
    assert table.schema.equals(choices_schema())
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["problem_id"], []).append(row)
    # p5 has no answer in any sample: nothing is chosen.
    assert sorted(found) == ["p0", "p1", "p2", "p3", "p4"]
    # p2: right, wrong, wrong, cut. The vote is wrong, the evaluator right.
    first, second = found["p2"]
    assert (first["roles"], first["right"], first["votes"], first["answer"]) == ([MAJORITY], False, 2, "9")
    assert (second["roles"], second["right"], second["votes"]) == ([WEIGHTED, BEST], True, 1)
    assert (second["gold"], second["samples"], second["right_samples"]) == ("0", 4, 1)
    # The right sample has three segments of logit 2, product s^3. Each of the two wrong ones has
    # one of 2 and two of -2, product s (1-s)^2.
    right, wrong = SIGMOID_2**3, SIGMOID_2 * (1 - SIGMOID_2) ** 2
    assert second["weight"] == pytest.approx(right / (right + 2 * wrong))
    assert first["weight"] == pytest.approx(2 * wrong / (right + 2 * wrong))
    assert second["step_scores"] == pytest.approx([SIGMOID_2] * 3)
    # p0: all choose the right answer; the most trusted wrong one is shown beside it.
    assert [row["roles"] for row in found["p0"]] == [[MAJORITY, WEIGHTED, BEST], [TRUSTED_WRONG]]


def test_a_right_solution_that_no_method_chose_is_shown() -> None:
    assert chosen([0, 0, 1, -1], [False, False, True, False], [0.9, 0.8, 0.1, 1.0]) == {
        0: [MAJORITY, WEIGHTED, BEST],
        2: [UNCHOSEN_RIGHT],
    }


def test_the_solution_of_an_answer_is_the_one_scored_highest() -> None:
    found = chosen([0, 0, 1, 1, 1], [True, True, False, False, False], [0.2, 0.9, 0.1, 0.3, 0.2])
    assert found == {3: [MAJORITY], 1: [WEIGHTED, BEST]}


def test_what_was_drawn_first_stands_for_a_tie_and_cut_samples_choose_nothing() -> None:
    assert next(iter(chosen([2, 0, 2, 0], [False] * 4, [0.5] * 4))) == 0
    assert chosen([-1, -1], [False, False], [0.9, 0.9]) == {}


def test_weights_of_zero_count_alike() -> None:
    with np.errstate(divide="ignore"):
        assert chosen([0, 1, 1], [True, False, False], [0.0, 0.0, 0.0]) == {
            1: [MAJORITY, WEIGHTED],
            0: [BEST],
        }
