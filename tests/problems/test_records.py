import dataclasses
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.artifacts.hashing import table_hash
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.grading.verdicts import payload_items
from e2h_pipeline.problems.records import (
    Problem,
    ProblemError,
    ProblemPool,
    ProblemSplit,
    counts_by_level,
    easy_table,
    gold_table,
    question_table,
    split_by_supervision,
)
from e2h_pipeline.problems.source import describe_source, load_pool, load_split, source_fingerprint
from e2h_pipeline.recipe import LadderProblems, Problems


def _problem(name: str, level: int | None) -> Problem:
    return Problem(name, level, "algebra", f"question of {name}", (f"step of {name}",), f"secret {name}")


POOL = ProblemPool(
    train=[_problem(f"train/{i:03d}", 1 + i % 5) for i in range(100)],
    benchmark=[_problem(f"test/{i}", 1 + i % 5) for i in range(500, 530)],
)


def _ids(problems: tuple[Problem, ...]) -> set[str]:
    return {p.problem_id for p in problems}


def _split(**options: object) -> ProblemSplit:
    return split_by_supervision(POOL, Problems.model_validate({"validation": 10, **options}))


def test_sizes_levels_and_disjointness() -> None:
    split = _split()
    assert [len(part) for part in (split.easy_train, split.easy_validation, split.hard, split.benchmark)] == [
        50,
        10,
        40,
        30,
    ]
    assert {p.level for p in [*split.easy_train, *split.easy_validation]} == {1, 2, 3}
    assert {p.level for p in split.hard} == {4, 5}
    assert not _ids(split.easy_train) & _ids(split.easy_validation)
    assert _ids(split.easy_train) | _ids(split.easy_validation) | _ids(split.hard) == _ids(tuple(POOL.train))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_a_raised_limit_keeps_what_was_drawn_before(first: int, second: int, seed: int) -> None:
    low, high = sorted((first, second))
    few, many = (_split(easy_limit=n, hard_limit=n, benchmark_limit=n, seed=seed) for n in (low, high))
    assert len(few.easy_train) == len(few.hard) == low
    assert len(few.benchmark) == min(low, 30)
    for part in ("easy_train", "hard", "benchmark"):
        assert _ids(getattr(few, part)) <= _ids(getattr(many, part))
    assert few.easy_validation == many.easy_validation


def test_one_limit_leaves_the_other_draws_alone() -> None:
    whole, limited = _split(hard_limit=20), _split(hard_limit=20, easy_limit=5, benchmark_limit=3)
    assert limited.hard == whole.hard
    assert limited.easy_validation == whole.easy_validation


def test_draws_do_not_depend_on_the_order_of_the_source() -> None:
    turned = ProblemPool(POOL.train[::-1], POOL.benchmark[::-1])
    options = Problems(validation=10, easy_limit=20, hard_limit=9, benchmark_limit=7)
    assert split_by_supervision(turned, options) == split_by_supervision(POOL, options)


def test_another_seed_holds_out_other_problems() -> None:
    assert _ids(_split(seed=0).easy_validation) != _ids(_split(seed=1).easy_validation)


def test_levels_above_the_easy_ones_are_hard() -> None:
    split = _split(easy_levels=(1,), validation=4)
    assert {p.level for p in split.hard} == {2, 3, 4, 5}
    assert len(split.easy_train) == 16


class Named(Problems):
    """Three named levels; the first two may be supervised."""

    levels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    level_names: ClassVar[tuple[str, ...]] = ("gentle", "steep", "sheer")
    supervisable_levels: ClassVar[tuple[int, ...]] = (1, 2)


THREE = ProblemPool(
    train=[_problem(f"train/{i:02d}", (1, 2, 3, None)[i % 4]) for i in range(40)],
    benchmark=[_problem(f"test/{i}", (1, 2, 3, None)[i % 4]) for i in range(8)],
)


def test_levels_are_those_of_the_domain() -> None:
    split = split_by_supervision(THREE, Named(validation=5))
    assert {p.level for p in (*split.easy_train, *split.easy_validation)} == {1, 2}
    assert {p.level for p in split.hard} == {3}
    assert [len(part) for part in (split.easy_train, split.easy_validation, split.hard)] == [15, 5, 10]


def test_levels_may_be_named() -> None:
    named = split_by_supervision(THREE, Named.model_validate({"easy_levels": ["steep"], "validation": 5}))
    assert named == split_by_supervision(THREE, Named(easy_levels=(2,), validation=5))
    assert {p.level for p in named.hard} == {1, 3}


def test_what_has_no_known_level_is_neither_easy_nor_hard() -> None:
    split = split_by_supervision(THREE, Named(validation=5))
    placed = _ids((*split.easy_train, *split.easy_validation, *split.hard))
    assert placed == {p.problem_id for p in THREE.train if p.level is not None}
    assert question_table(split.benchmark)["level"].to_pylist() == [1, 2, 3, None] * 2
    assert question_table(split.benchmark).schema.field("level").type == pa.int8()


def test_a_hold_out_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"problems\.validation=60 leaves no easy problem"):
        _split(validation=60)


def test_questions_carry_nothing_that_tells_the_answer() -> None:
    split = _split()
    for problems in (split.hard, split.benchmark):
        table = question_table(problems)
        assert table.column_names == ["problem_id", "level", "subject", "question"]
        assert "secret" not in str(table.to_pylist())
        assert "step of" not in str(table.to_pylist())


def test_easy_problems_show_all_and_their_side() -> None:
    rows = easy_table(_split()).to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 50 + ["validation"] * 10
    assert all(row["answer"] == f"secret {row['problem_id']}" for row in rows)
    assert all(row["steps"] == [f"step of {row['problem_id']}"] for row in rows)


def test_gold_answers_are_those_of_hard_and_benchmark_problems_only() -> None:
    split = _split()
    rows = gold_table(split).to_pylist()
    assert {row["problem_id"] for row in rows if row["part"] == "hard"} == _ids(split.hard)
    assert {row["problem_id"] for row in rows if row["part"] == "benchmark"} == _ids(split.benchmark)
    assert len(rows) == 70
    assert all(row["answer"] == f"secret {row['problem_id']}" for row in rows)


def test_an_empty_part_still_has_its_columns() -> None:
    assert question_table(()).column_names == ["problem_id", "level", "subject", "question"]


def test_counts_by_level() -> None:
    assert counts_by_level(POOL.benchmark) == {"1": 6, "2": 6, "3": 6, "4": 6, "5": 6}
    assert counts_by_level([_problem("a", 5), _problem("b", 2), _problem("c", 5)]) == {"2": 1, "5": 2}
    assert list(counts_by_level(THREE.benchmark).items()) == [("1", 2), ("2", 2), ("3", 2), ("unknown", 2)]


def _with_tests(problem: Problem) -> Problem:
    return dataclasses.replace(
        problem, payload={"tests": f"assert secret {problem.problem_id}", "entry": "f"}
    )


def test_a_payload_is_in_easy_and_gold_tables_and_in_no_question(tmp_path: Path) -> None:
    pool = ProblemPool([_with_tests(p) for p in POOL.train], [_with_tests(p) for p in POOL.benchmark])
    split = split_by_supervision(pool, Problems(validation=10))
    for problems in (split.hard, split.benchmark):
        assert question_table(problems) == question_table(
            [dataclasses.replace(p, payload={}) for p in problems]
        )
    for table in (easy_table(split), gold_table(split), question_table(split.hard, with_answers=True)):
        write_table(tmp_path / "data.parquet", table)
        for row in read_table(tmp_path / "data.parquet").to_pylist():
            assert dict(payload_items(row)) == {"tests": f"assert secret {row['problem_id']}", "entry": "f"}


def test_tables_without_a_payload_have_no_column_for_it() -> None:
    split = _split()
    assert "payload" not in (*easy_table(split).column_names, *gold_table(split).column_names)
    assert dict(payload_items(easy_table(split).to_pylist()[0])) == {}


def test_the_content_of_a_payload_is_in_the_data_version() -> None:
    def version(**payload: str) -> str:
        easy = [dataclasses.replace(_problem(name, 1), payload=payload) for name in ("a", "b")]
        return table_hash(easy_table(ProblemSplit(tuple(easy), (), (), ())))

    assert version(tests="1") == version(tests="1")
    assert len({version(), version(tests="1"), version(tests="2"), version(test="s1")}) == 4


def test_the_ladder_through_the_one_door_of_all_sources() -> None:
    options = LadderProblems(train_per_level=10, validation=5)
    split = load_split(options)
    assert [len(part) for part in (split.easy_train, split.easy_validation, split.hard, split.benchmark)] == [
        25,
        5,
        20,
        500,
    ]
    described = describe_source(options, load_pool(options))
    assert described["benchmark_by_level"] == {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}
    assert described["fingerprint"] == source_fingerprint(options) == {"generator": "ladder"}
