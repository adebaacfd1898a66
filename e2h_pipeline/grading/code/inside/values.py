"""Values of Python as JSON, and back as plain data.

An object of a program's own class comes out as `Unknown`, which equals nothing. So no `__eq__` of a
program decides a comparison.
"""

from __future__ import annotations

import json
from typing import Any

_SHOWN = 300  # characters
_MARK = "?"
"""The key of what JSON has no form for: {"?": kind, "v": value}."""

_GROUPS: tuple[type[tuple[Any, ...]] | type[set[Any]] | type[frozenset[Any]], ...] = (tuple, set, frozenset)


class Unknown:
    """A value that has no form as plain data."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False


def to_json(value: Any) -> str:
    """One line of JSON. A value too deep to be written is an `Unknown`."""
    try:
        return json.dumps(_plain(value))
    except (RecursionError, ValueError):  # deep, cyclic, or a number of too many digits
        return json.dumps({_MARK: "other", "v": f"a {type(value).__name__} too large to write"})


def from_json(text: str) -> Any:
    """The value of a line of `to_json`.

    Raises:
        ValueError: not such a line, or too deep.
    """
    try:
        return _value(json.loads(text))
    except (RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a value: {type(error).__name__}") from None


def reply(line: str) -> tuple[str, Any]:
    """Error and value of what a program says of a call; the error is empty where there is none.

    Raises:
        ValueError: it is no such line.
    """
    try:
        found = json.loads(line)
        if "error" in found:
            return str(found["error"])[:_SHOWN] or "an error", None
        return "", _value(found["value"])
    except (RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a result: {type(error).__name__}") from None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {_MARK: "dict", "v": [[_plain(key), _plain(part)] for key, part in value.items()]}
    for group in _GROUPS:
        if isinstance(value, group):
            return {_MARK: group.__name__, "v": [_plain(part) for part in value]}
    if isinstance(value, bytes | bytearray):
        return {_MARK: "bytes", "v": bytes(value).hex()}
    if isinstance(value, complex):
        return {_MARK: "complex", "v": [value.real, value.imag]}
    return {_MARK: "other", "v": _shown(value)}


def _shown(value: Any) -> str:
    try:
        return str(repr(value))[:_SHOWN]
    except Exception:  # noqa: BLE001 - a program's own __repr__
        return f"a {type(value).__name__}"


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    kind, inner = plain[_MARK], plain["v"]
    if kind == "dict":
        return {_value(key): _value(part) for key, part in inner}
    for group in _GROUPS:
        if kind == group.__name__:
            return group(_value(part) for part in inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "complex":
        return complex(*inner)
    return Unknown(str(inner)[:_SHOWN])
