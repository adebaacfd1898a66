import numpy as np
import pytest

from e2h_pipeline.evaluation.results import RESULT_COLUMNS, result_rows, select
from e2h_pipeline.evaluation.scoreboard import Method, Scoreboard, metrics_table
from e2h_pipeline.statistics.bootstrap import Bootstrap

MAJORITY = [Method("sft", "majority", n) for n in (1, 2)]


def board(values: list[float], name: str = "LADDER500", grader: str = "exact/1") -> Scoreboard:
    ids = tuple(f"p{i}" for i in range(len(values)))
    levels = np.arange(1, len(values) + 1)
    return Scoreboard(name, grader, ids, levels, dict.fromkeys(MAJORITY, np.array(values)))


def test_rows_are_flat_and_carry_their_data() -> None:
    metrics = metrics_table(board([1, 0, 0, 1, 0]), (1, 2, 3), Bootstrap(100)).to_pylist()
    rows = result_rows("ladder/seed=1", metrics, {"easy_problems": "ab12"})
    assert tuple(rows[0]) == RESULT_COLUMNS
    assert {row["grader"] for row in rows} == {"exact/1"}
    assert rows[0]["recipe"] == "ladder/seed=1" and rows[0]["data_versions"] == {"easy_problems": "ab12"}
    short = select(rows)
    assert [(r["n"], r["levels"]) for r in short] == [(2, "easy"), (2, "hard"), (2, "all")]
    assert short[0]["accuracy"] == pytest.approx(1 / 3)
