import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from graded_texts import verdicts_of
from processes import children_of

from e2h_pipeline.artifacts.reporter import Reporter
from e2h_pipeline.artifacts.shards import Call, LocalRunner
from e2h_pipeline.grading import sharded
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.worker_pool import WorkerPool

PAIRS = [
    ("\\frac{1}{2}", "0.5"),
    ("\\frac{1}{2}", "2"),
    ("x^2-1", "(x-1)(x+1)"),
    ("\\sum_{k=1}^{4} k", "10"),  # a worker decides
    ("\\sum_{k=1}^{4} k", "11"),
    ("3", "half a surrogate pair \ud800"),
]
PROBLEMS = [["0.5", None, "\\frac{1}{2}", "1/2", "2", "2"], [], ["10", "10.0"], ["", "x"], [None, None]]


class Counting(LocalRunner):
    """Keeps the names of the shards it makes."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def run(self, function: Callable[..., pa.Table], calls: Sequence[Call]) -> Iterator[tuple[str, pa.Table]]:
        for name, table in super().run(function, calls):
            self.made.append(name)
            yield name, table


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards for a few answers."""
    monkeypatch.setattr(sharded, "PAIRS", 2)
    monkeypatch.setattr(sharded, "ANSWERS", 6)


@pytest.mark.parametrize("name", ["math", "exact", "math-verify"])
def test_verdicts_and_classes_are_those_of_the_grader(name: str, tmp_path: Path) -> None:
    runner = Counting()
    with grader(name) as plain, sharded_grader(name, tmp_path, runner, Reporter()) as judge:
        assert (judge.name, judge.version) == (plain.name, plain.version)
        assert verdicts_of(judge, PAIRS) == verdicts_of(plain, PAIRS)
        assert judge.classes(PROBLEMS) == plain.classes(PROBLEMS)
        assert judge.undecided == plain.undecided
    assert [made.partition("-")[0] for made in runner.made].count("grades") == 3
    assert len(runner.made) > 4


def test_one_block_is_graded_here(tmp_path: Path) -> None:
    runner = Counting()
    with sharded_grader("exact", tmp_path, runner, Reporter()) as judge:
        assert verdicts_of(judge, PAIRS[:1]) == ["different"]
    assert runner.made == [] and len(list(tmp_path.glob("grades-*.parquet"))) == 1


def test_what_is_graded_stays_graded(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    with sharded_grader("math", tmp_path, first, Reporter()) as judge:
        before = verdicts_of(judge, PAIRS)
    with sharded_grader("math", tmp_path, second, Reporter()) as judge:
        assert verdicts_of(judge, PAIRS) == before
        assert second.made == []
        verdicts_of(judge, [("1", "1"), ("1", "2"), ("1", "3")])  # something new
    assert len(second.made) == 2
    with sharded_grader("exact", tmp_path, second, Reporter()) as judge:  # gives other verdicts
        assert verdicts_of(judge, PAIRS) != before


def test_workers_end_with_the_block(tmp_path: Path) -> None:
    before = children_of(os.getpid())
    with sharded_grader("math", tmp_path, LocalRunner(), Reporter()) as judge:
        verdicts_of(judge, PAIRS)
        assert children_of(os.getpid()) > before
    assert children_of(os.getpid()) == before


def test_workers_are_counted_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2H_GRADING_WORKERS", "3")
    assert WorkerPool().size == 3 and WorkerPool(2).size == 2
