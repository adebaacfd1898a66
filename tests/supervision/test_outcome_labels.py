from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.grading.exact import ExactGrader
from e2h_pipeline.grading.verdicts import Verdict
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemSplit, easy_table
from e2h_pipeline.supervision.outcome_labels import label_easy_outcomes
from e2h_pipeline.supervision.rows import MOST_TO_ONE, balanced, grade_answers

RIGHT, WRONG, CUT, NONE = (
    "So 6.\n\n# Answer\n\n6",
    "So 5.\n\n# Answer\n\n5",
    "So 6.\n\n# Answer\n\n6 ",  # the limit came before the end
    "So what?",
)


def _label(
    folder: Path, completions: dict[str, list[str]], grader: str = "exact", seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Label hand-written samples of problems with answer 6; CUT is unfinished."""
    problems = [Problem(name, 2, "algebra", f"q {name}", ("s",), "6") for name in completions]
    split = ProblemSplit(tuple(problems[:-1]), tuple(problems[-1:]), (), ())
    write_table(folder / "easy" / "data.parquet", easy_table(split))
    pairs = [
        ({"problem_id": name, "level": 2}, Sample(i, text, (1, 2), "length" if text == CUT else "stop", -1.0))
        for name, texts in completions.items()
        for i, text in enumerate(texts)
    ]
    write_table(folder / "pool" / "part-00000.parquet", pool_table(pairs, LADDER))
    work = Work(folder / "out", folder / "work", seed)
    summary = label_easy_outcomes(folder / "pool", folder / "easy", LADDER, grader, work)
    return read_table(folder / "out" / "data.parquet").to_pylist(), summary


def test_distinct_samples_are_right_or_wrong_by_their_answer(tmp_path: Path) -> None:
    rows, summary = _label(tmp_path, {"a": [RIGHT, WRONG, RIGHT, CUT, NONE, ""], "b": [WRONG, RIGHT]})
    kept = [(r["problem_id"], r["sample"], r["outcome"], r["finished"], r["split"]) for r in rows]
    # one right sample of "a" keeps three of four wrong ones
    assert [each for each in kept if each[0] == "b"] == [
        ("b", 0, 0, True, "validation"),
        ("b", 1, 1, True, "validation"),
    ]
    assert kept[0] == ("a", 0, 1, True, "train")
    assert len(kept) == 6
    assert {each for each in kept if each[0] == "a" and each[2] == 0} <= {
        ("a", 1, 0, True, "train"),
        ("a", 3, 0, False, "train"),
        ("a", 4, 0, True, "train"),
        ("a", 5, 0, True, "train"),
    }
    assert {r["question"] for r in rows} == {"q a", "q b"}
    assert {r["level"] for r in rows} == {2}
    assert summary == {
        "solutions": 6,
        "problems": 2,
        "right": 2,
        "wrong": 4,
        "samples": 8,
        "repeated": 1,
        "unfinished": 1,
        "no_answer": 2,
        "undecided": 0,
        "dropped_for_balance": 1,
        "one_sided": 0,
        "labels_bought": 7,
        "grader": "exact/1",
    }


def test_the_grader_is_the_recipes(tmp_path: Path) -> None:
    texts = ["# Answer\n\n$6.$", "# Answer\n\n\\frac{12}{2}", "# Answer\n\n5"]
    outcomes = {
        name: [r["outcome"] for r in _label(tmp_path / name, {"a": texts}, name)[0]]
        for name in ("exact", "math")
    }
    assert outcomes == {"exact": [0], "math": [1, 1, 0]}  # by the exact grader all are wrong: one stays


def test_no_samples_no_labels(tmp_path: Path) -> None:
    """With human labels only, the stage is made and empty."""
    rows, summary = _label(tmp_path, {"a": []})
    assert rows == []
    assert summary["solutions"] == summary["samples"] == 0
    assert read_table(tmp_path / "out" / "data.parquet").schema.field("outcome").type == pa.int8()


def _numbered(right: int, wrong: int) -> list[str]:
    return [f"step {i}\n\n# Answer\n\n{6 if i < right else 5}" for i in range(right + wrong)]


@pytest.mark.parametrize(
    ("right", "wrong", "kept"),
    [(6, 1, (3, 1)), (1, 8, (1, 3)), (2, 3, (2, 3)), (4, 12, (4, 12)), (5, 0, (1, 0)), (0, 5, (0, 1))],
)
def test_right_and_wrong_are_at_most_three_to_one(
    tmp_path: Path, right: int, wrong: int, kept: tuple[int, int]
) -> None:
    rows, summary = _label(tmp_path, {"a": _numbered(right, wrong)})
    assert (summary["right"], summary["wrong"]) == kept
    assert summary["dropped_for_balance"] == right + wrong - sum(kept)
    assert summary["one_sided"] == (0 in kept)
    assert [r["sample"] for r in rows] == sorted(r["sample"] for r in rows)


def test_the_draw_is_the_seeds_and_each_problems_own(tmp_path: Path) -> None:
    def drawn(name: str, a: list[str], seed: int) -> list[int]:
        rows, _ = _label(tmp_path / name, {"a": a, "b": _numbered(2, 30)}, seed=seed)
        return [r["sample"] for r in rows if r["problem_id"] == "b"]

    first = drawn("1", _numbered(1, 9), 0)
    assert drawn("2", _numbered(7, 3), 0) == first
    assert drawn("3", _numbered(1, 9), 1) != first


@given(st.lists(st.booleans()), st.text(max_size=3))
def test_balance_keeps_the_rarer_kind_whole(outcomes: list[bool], stream: str) -> None:
    rows = [{"n": i, "right": ok} for i, ok in enumerate(outcomes)]
    kept = balanced(rows, lambda row: row["right"], stream)
    assert kept == balanced(rows, lambda row: row["right"], stream)
    assert len({row["n"] for row in kept}) == len(kept)
    had, has = Counter(outcomes), Counter(row["right"] for row in kept)
    fewer = min(had[True], had[False])
    for kind in (True, False):
        assert has[kind] == min(had[kind], max(1, MOST_TO_ONE * fewer))
    if fewer:
        assert 1 / MOST_TO_ONE <= has[True] / has[False] <= MOST_TO_ONE


class _Doubtful(ExactGrader):
    """Undecided on 7; records its pairs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def grade_pairs(self, pairs: Any) -> Any:
        self.asked += pairs
        grades = super().grade_pairs(pairs)
        return [
            type(grade)(Verdict.UNDECIDED, "time") if answer == "7" else grade
            for (_, answer), grade in zip(pairs, grades, strict=True)
        ]


def test_each_distinct_pair_is_graded_once() -> None:
    judge = _Doubtful()
    rows = [{"problem_id": name} for name in "aabab"]
    easy = {"a": {"answer": "6"}, "b": {"answer": "6"}}
    found = grade_answers(judge, rows, ["6", "7", "6", None, "5"], easy)
    assert found == [Verdict.EQUAL, Verdict.UNDECIDED, Verdict.EQUAL, None, Verdict.DIFFERENT]
    assert [(gold.answer, answer) for gold, answer in judge.asked] == [("6", "5"), ("6", "6"), ("6", "7")]
