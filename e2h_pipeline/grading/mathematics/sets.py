r"""Unions, intersections and differences of sets: of real numbers exactly, of other things by key.

A set of real numbers is a sorted list of spans without overlap, a span a pair of cuts. A cut is a
place on the line just before a number, `(x, 0)`, or just behind it, `(x, 1)`: so `[1,2)` is
`((1, 0), (2, 0))` and `{3}` is `((3, 0), (3, 1))`, and no rule has to tell open ends from closed ones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from e2h_pipeline.grading.mathematics.values import Key

INFINITY = float("inf")
Cut = tuple[Fraction | float, int]
Span = tuple[Cut, Cut]
EVERYTHING: Span = ((-INFINITY, 1), (INFINITY, 0))

_KEPT: dict[str, Callable[[bool, bool], bool]] = {
    "union": lambda one, other: one or other,
    "intersection": lambda one, other: one and other,
    "difference": lambda one, other: one and not other,
}


class RealSet(NamedTuple):
    """Real numbers.

    Attributes:
        spans: in order, without overlap.
        keys: the key of every number at an end.
    """

    spans: tuple[Span, ...]
    keys: dict[Fraction | float, Key]


class FiniteSet(NamedTuple):
    """Things with keys that are not all real numbers: points, words, letters."""

    members: frozenset[Key]


ExactSet = RealSet | FiniteSet


def real_size(key: Key) -> Fraction | float | None:
    """The real number or infinity behind a key; None for other keys."""
    if key[:2] == ("constant", "inf"):
        return -INFINITY if key[2:] == (-1,) else INFINITY
    if key[0] != "value":
        return None
    if key[1] == "q":
        return Fraction(key[2], key[3])
    return Fraction(key[2]) * Fraction(2) ** key[3] if key[1] == "r" else None


def interval(brackets: str, low: Key, high: Key) -> RealSet | None:
    """The numbers between two ends; None if an end is no real number, or they are in no order."""
    start, end = real_size(low), real_size(high)
    if start is None or end is None or start > end:
        return None
    first: Cut = (start, 0 if brackets[0] == "[" and start != -INFINITY else 1)
    last: Cut = (end, 1 if brackets[1] == "]" and end != INFINITY else 0)
    spans = ((first, last),) if first < last else ()
    return RealSet(spans, {start: low, end: high})


def finite(members: Sequence[Key]) -> ExactSet:
    """The set of these things."""
    sizes = {real_size(member): member for member in members}
    if any(size is None or abs(size) == INFINITY for size in sizes):
        return FiniteSet(frozenset(members))
    ends = sorted(size for size in sizes if size is not None)
    keys = {size: member for size, member in sizes.items() if size is not None}
    return RealSet(tuple(((size, 0), (size, 1)) for size in ends), keys)


def everything() -> RealSet:
    """All real numbers."""
    return RealSet((EVERYTHING,), {})


def combined(operation: str, one: ExactSet, other: ExactSet) -> ExactSet | None:
    """Union, intersection or difference; None for an interval and things that are no numbers."""
    kept = _KEPT[operation]
    if isinstance(one, RealSet) and isinstance(other, RealSet):
        return RealSet(_swept(one.spans, other.spans, kept), one.keys | other.keys)
    first, second = _members(one), _members(other)
    if first is None or second is None:
        return None
    return finite([member for member in first | second if kept(member in first, member in second)])


def set_keys(found: ExactSet) -> tuple[Key, ...]:
    """The keys of its pieces: numbers, intervals and other things."""
    if isinstance(found, FiniteSet):
        return tuple(found.members)
    return tuple(_span_key(span, found.keys) for span in found.spans)


def _span_key(span: Span, keys: dict[Fraction | float, Key]) -> Key:
    (low, after), (high, to) = span
    if low == high:
        return keys[low]
    ends = (
        ("constant", "inf", -1) if low == -INFINITY else keys[low],
        ("constant", "inf") if high == INFINITY else keys[high],
    )
    return ("tuple", ("[" if after == 0 else "(") + ("]" if to == 1 else ")"), ends)


def _members(found: ExactSet) -> frozenset[Key] | None:
    if isinstance(found, FiniteSet):
        return found.members
    if any(low != high for (low, _), (high, _) in found.spans):
        return None
    return frozenset(found.keys[low] for (low, _), _ in found.spans)


def _swept(
    one: Sequence[Span], other: Sequence[Span], kept: Callable[[bool, bool], bool]
) -> tuple[Span, ...]:
    """The spans of what is kept, from left to right; spans that touch become one."""
    cuts = sorted({cut for span in (*one, *other) for cut in span})
    starts = [[start for start, _ in spans] for spans in (one, other)]
    found: list[Span] = []
    for low, high in pairwise(cuts):
        if not kept(_covers(one, starts[0], low), _covers(other, starts[1], low)):
            continue
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return tuple(found)


def _covers(spans: Sequence[Span], starts: Sequence[Cut], cut: Cut) -> bool:
    """Whether what is just behind a cut lies in a span."""
    place = bisect_right(starts, cut) - 1
    return place >= 0 and cut < spans[place][1]
