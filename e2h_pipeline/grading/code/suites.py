"""Tests of a program, as the payload of a problem carries them: JSON under the name `tests`.

Three forms. `stdin`: what the program reads and what it must write, case by case (APPS, LiveCodeBench).
`calls`: arguments of a function and what it must return. `asserts`: test code about a function (HumanEval,
MBPP), with the code that comes before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAYLOAD = "tests"
"""Name of the tests in a problem's payload."""
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8  # as of numpy.allclose, by which APPS compares


class SuiteError(ValueError):
    """Tests that cannot be read; the message names the field and the mend."""


@dataclass(frozen=True)
class StdinCases:
    """(standard input, expected output) of each case."""

    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CallCases:
    """(arguments, expected result) of each case, as JSON has them."""

    entry_point: str
    cases: tuple[tuple[list[Any], Any], ...]


@dataclass(frozen=True)
class Asserts:
    """Test code about a function.

    Attributes:
        setup: code before the tests: the prompt of the problem with its imports and helpers.
        code: it calls the function by its name, or as `candidate`.
    """

    entry_point: str
    setup: str
    code: str


Suite = StdinCases | CallCases | Asserts


def to_text(suite: Suite) -> str:
    """As a payload carries it."""
    if isinstance(suite, StdinCases):
        found: dict[str, Any] = {"form": "stdin", "cases": [list(case) for case in suite.cases]}
    elif isinstance(suite, CallCases):
        found = {"form": "calls", "entry_point": suite.entry_point, "cases": [list(c) for c in suite.cases]}
    else:
        found = {
            "form": "asserts",
            "entry_point": suite.entry_point,
            "setup": suite.setup,
            "code": suite.code,
        }
    return json.dumps(found, ensure_ascii=False)


def from_text(text: str) -> Suite:
    """Read a payload.

    Raises:
        SuiteError: it is not one.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise SuiteError(f"payload '{PAYLOAD}' is not JSON; make the problems again") from None
    form = found.get("form") if isinstance(found, Mapping) else None
    try:
        if form == "stdin":
            return StdinCases(tuple((str(given), str(wanted)) for given, wanted in found["cases"]))
        if form == "calls":
            return CallCases(str(found["entry_point"]), tuple((list(a), w) for a, w in found["cases"]))
        if form == "asserts":
            return Asserts(str(found["entry_point"]), str(found["setup"]), str(found["code"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SuiteError(f"payload '{PAYLOAD}': {error}; make the problems again") from None
    raise SuiteError(f"payload '{PAYLOAD}' has form {form!r}; there are stdin, calls, asserts")


def same_output(written: str, wanted: str) -> bool:
    """Whether an output is the expected one: line by line without white space at the ends, and where the
    expected one has decimals, those as numbers."""
    ours, theirs = _lines(written), _lines(wanted)
    if len(ours) != len(theirs):
        return False
    return all(one == other or _same_tokens(one, other) for one, other in zip(ours, theirs, strict=True))


def same_value(value: Any, wanted: Any) -> bool:
    """Whether a result is the expected one. JSON knows no tuples and no keys but texts; and APPS writes some
    results as a list of one."""
    plain = _plain(value)
    if _equal(plain, wanted):
        return True
    return isinstance(wanted, list) and len(wanted) == 1 and _equal(plain, wanted[0])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _same_tokens(one: str, other: str) -> bool:
    ours, theirs = one.split(), other.split()
    return len(ours) == len(theirs) and all(_same_token(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_token(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    if not any(mark in theirs for mark in ".eE"):
        return False
    try:
        return _close(float(ours), float(theirs))
    except ValueError:
        return False


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other or (one == other and isinstance(one, int) and isinstance(other, int))
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and (one == other or _close(float(one), float(other)))
    return bool(type(one) is type(other) and one == other)
