"""Set algebra against membership: a number is in a union if it is in one of the sets, and so on."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.mathematics.sets import (
    EVERYTHING,
    INFINITY,
    ExactSet,
    FiniteSet,
    RealSet,
    combined,
    everything,
    finite,
    interval,
    set_keys,
)
from e2h_pipeline.grading.mathematics.values import Key, number_key

PROBES = [Fraction(n, 2) for n in range(-3, 16)]


def key(value: Fraction | float) -> Key:
    if isinstance(value, float):
        return ("constant", "inf", -1) if value < 0 else ("constant", "inf")
    return ("value", *number_key(value))


ends = st.one_of(st.integers(-1, 7).map(Fraction), st.sampled_from((-INFINITY, INFINITY)))
intervals = st.builds(
    lambda brackets, a, b: interval(brackets, key(min(a, b)), key(max(a, b))),
    st.sampled_from(("()", "[)", "(]", "[]")),
    ends,
    ends,
).filter(lambda found: found is not None)
points = st.lists(st.integers(-1, 7).map(Fraction).map(key), max_size=3).map(finite)
real_sets = st.one_of(intervals, points, st.just(everything()))


def holds(found: ExactSet, value: Fraction) -> bool:
    assert isinstance(found, RealSet)
    return any(low <= (value, 0) and (value, 1) <= high for low, high in found.spans)


@settings(max_examples=150, deadline=None)
@given(real_sets, real_sets, real_sets)
def test_membership(one: RealSet, other: RealSet, third: RealSet) -> None:
    rules = {"union": any, "intersection": all, "difference": lambda pair: pair[0] and not pair[1]}
    for operation, rule in rules.items():
        found = combined(operation, one, other)
        assert found is not None
        for value in PROBES:
            assert holds(found, value) == rule([holds(one, value), holds(other, value)])
        again = combined("union", found, third)
        assert again is not None and again == combined("union", third, found)


def test_what_touches_is_one_piece() -> None:
    halves = [
        interval("[]", key(Fraction(1)), key(Fraction(2))),
        interval("(]", key(Fraction(2)), key(Fraction(3))),
    ]
    assert halves[0] is not None and halves[1] is not None
    found = combined("union", halves[0], halves[1])
    assert found is not None
    assert set_keys(found) == (("tuple", "[]", (key(Fraction(1)), key(Fraction(3)))),)
    assert everything().spans == (EVERYTHING,)


@pytest.mark.parametrize(
    ("operation", "kept"), [("union", "abc"), ("intersection", "b"), ("difference", "a")]
)
def test_things_that_are_no_numbers(operation: str, kept: str) -> None:
    one, other = finite([("words", "a"), ("words", "b")]), finite([("words", "b"), ("words", "c")])
    assert combined(operation, one, other) == FiniteSet(frozenset(("words", letter) for letter in kept))
    assert combined(operation, one, everything()) is None
