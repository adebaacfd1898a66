import numpy as np
import pytest

from e2h_pipeline.statistics.levels import (
    UNKNOWN_LEVEL,
    group_order,
    is_single_level,
    known_levels,
    level_array,
    level_column,
    level_groups,
)


def test_groups_by_level() -> None:
    groups = level_groups(np.array([1, 3, 5, 5]), (1, 2, 3))
    assert {name: mask.tolist() for name, mask in groups.items()} == {
        "1": [True, False, False, False],
        "3": [False, True, False, False],
        "5": [False, False, True, True],
        "easy": [True, True, False, False],
        "hard": [False, False, True, True],
        "all": [True, True, True, True],
    }


@pytest.mark.parametrize(("levels", "easy"), [(3, (1,)), (5, (1, 2, 3)), (7, (1, 2)), (12, (1, 2, 3))])
def test_a_domain_may_have_any_number_of_levels(levels: int, easy: tuple[int, ...]) -> None:
    groups = level_groups(np.arange(levels, 0, -1), easy)
    assert list(groups) == [*map(str, range(1, levels + 1)), "easy", "hard", "all"]
    assert groups["easy"].sum() == len(easy) and groups["hard"].sum() == levels - len(easy)
    assert sorted(groups, key=group_order) == list(groups)


def test_a_problem_of_unknown_level_counts_among_all_only() -> None:
    groups = level_groups(level_array([1, None, 7, None]), (1,))
    assert {name: mask.tolist() for name, mask in groups.items()} == {
        "1": [True, False, False, False],
        "7": [False, False, True, False],
        "easy": [True, False, False, False],
        "hard": [False, False, True, False],
        "all": [True, True, True, True],
    }
    assert list(level_groups(level_array([None, None]), (1,))) == ["all"]


def test_without_easy_levels_every_known_level_is_hard() -> None:
    groups = level_groups(level_array([1, 2, None]), ())
    assert list(groups) == ["1", "2", "hard", "all"] and groups["hard"].sum() == 2


def test_unknown_levels_are_null_in_tables() -> None:
    levels = level_array([3, None, 1])
    assert levels.tolist() == [3, UNKNOWN_LEVEL, 1] and level_column(levels) == [3, None, 1]
    assert known_levels(levels) == [1, 3]


def test_names_of_groups() -> None:
    assert [is_single_level(name) for name in ("1", "12", "easy", "hard", "all")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert sorted(["all", "10", "hard", "2", "easy"], key=group_order) == ["2", "10", "easy", "hard", "all"]
