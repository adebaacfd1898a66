"""Values of programs as plain data, and comparison with what tests expect."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.code.inside import values
from e2h_pipeline.grading.code.suites import (
    Asserts,
    CallCases,
    StdinCases,
    SuiteError,
    from_text,
    same_output,
    same_value,
    to_text,
)

SINGLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHED = st.recursive(
    SINGLE, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5
)
VALUES = st.recursive(
    HASHED,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(HASHED, inner, max_size=3) | st.sets(HASHED, max_size=3)
    ),
    max_leaves=10,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    line = values.to_json(value)
    assert "\n" not in line
    found = values.from_json(line)
    assert found == value and type(found) is type(value)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_no_line_is_more_than_an_error(found: Any) -> None:
    for read in (values.from_json, values.reply):
        try:
            read(json.dumps(found))
        except ValueError:
            continue


class Sly:
    def __eq__(self, other: object) -> bool:
        return True

    def __repr__(self) -> str:
        raise RuntimeError

    __hash__ = object.__hash__


@pytest.mark.parametrize("value", [Sly(), [Sly()], lambda: 1, iter([1]), object()])
def test_objects_of_a_program_equal_nothing(value: object) -> None:
    line = values.to_json(value)
    assert values.from_json(line) != values.from_json(line)


def test_what_is_too_large_or_too_deep_is_unknown() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for value in (deep, cyclic, 10**5000):
        assert isinstance(values.from_json(values.to_json(value)), values.Unknown)
    with pytest.raises(ValueError):
        values.from_json("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize(
    ("written", "wanted", "same"),
    [
        ("4\n", "4", True),
        ("4 \n 5\n\n", "4\n5", True),
        ("4\n5", "4 5", False),
        ("0.30000000000000004", "0.3", True),
        ("0.31", "0.3", False),
        ("3.0", "3", False),
        ("3", "3.0", True),
        ("1e-9", "0.0", True),
        ("Yes", "YES", False),
        ("nan", "nan.", False),
        ("a  b", "a b", True),
        ("", "", True),
        ("x", "", False),
    ],
)
def test_outputs(written: str, wanted: str, same: bool) -> None:
    assert same_output(written, wanted) is same


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [
        (3, 3, True),
        (3, [3], True),
        ([3], 3, False),
        ((1, (2,)), [1, [2]], True),
        ({1: "a"}, {"1": "a"}, True),
        (0.1 + 0.2, 0.3, True),
        (0.1 + 0.2, [0.3], True),
        (3.0, 3, True),
        (True, 1, True),
        (True, 2, False),
        ("3", 3, False),
        (None, None, True),
        (None, 0, False),
        ({1}, [1], False),
        (math.nan, math.nan, False),
    ],
)
def test_results(value: object, wanted: object, same: bool) -> None:
    assert same_value(value, wanted) is same


@pytest.mark.parametrize(
    "suite",
    [
        StdinCases((("1\n", "2\n"), ("", ""))),
        CallCases("f", (([1, [2]], {"a": None}), ([], 0.5))),
        Asserts("f", "import math", "assert f(1) == 'é'"),
    ],
)
def test_suites_come_back_as_they_were(suite: StdinCases | CallCases | Asserts) -> None:
    assert from_text(to_text(suite)) == suite


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"form": "x"}', '{"form": "calls"}', '{"form": "stdin", "cases": 3}']
)
def test_other_payloads_are_refused(text: str) -> None:
    with pytest.raises(SuiteError, match="tests"):
        from_text(text)
