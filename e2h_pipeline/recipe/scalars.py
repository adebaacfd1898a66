"""Scalars of recipe files and keys, read by the type of their field.

Files and keys hold text; only the field knows whether `1e3` is a number or a commit. Numbers and
`true`/`false` are those of YAML 1.2's core schema. What YAML 1.1 reads otherwise (`010` is 8 there,
`1:30` is 90, `yes` is true) is refused, because people mean one thing and programs read another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, DecimalException
from types import NoneType
from typing import Any, Literal, get_args, get_origin

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_LIKE_A_NUMBER = re.compile(r"[-+.]*[0-9]")
_LONGEST_NUMBER = 100
_LARGEST_INT = 2**63
_SMALLEST_PLAIN, _LARGEST_PLAIN = -4, 16  # powers of ten; beyond them with an exponent, as Python does
_BASES = {"0x": 16, "0o": 8}


class Plain(str):
    """A scalar without quotes: unlike a quoted one, it may stand for `null`."""

    __slots__ = ()


def kinds(annotation: Any) -> frozenset[type]:
    """The scalar types that a field's annotation admits, inside tuples and unions too."""
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    if parts := get_args(annotation):
        return frozenset().union(*map(kinds, parts))
    found = NoneType if annotation is None else annotation
    return frozenset({found} & {str, int, float, bool, NoneType}) if isinstance(found, type) else frozenset()


def typed(value: Any, wanted: frozenset[type]) -> Any:
    """A value from a file or key with its scalars read as the types that its field admits.

    Raises:
        ValueError: a scalar is none of them, or ambiguous; the message has the mend.
    """
    if isinstance(value, str):
        return _scalar(value, wanted) if wanted else value
    if isinstance(value, list | tuple):
        return [typed(item, wanted) for item in value]
    if isinstance(value, Mapping) and wanted:
        return {name: typed(item, wanted) for name, item in value.items()}
    return value


def untyped(text: str) -> Any:
    """A scalar by its looks alone, for tables; text where that is ambiguous."""
    for wanted in (bool, float if "." in text or "e" in text else int):
        try:
            return _scalar(text, frozenset({wanted}))
        except ValueError:
            continue
    return str(text)


def _scalar(text: str, wanted: frozenset[type]) -> Any:
    if NoneType in wanted and isinstance(text, Plain) and text in _NULL:
        return None
    if str in wanted:
        return str(text)
    if bool in wanted and text in _BOOL:
        return _BOOL[text]
    if int in wanted or float in wanted:
        return _number(str(text), float in wanted)
    raise ValueError(f"{_short(text)!r} is neither true nor false")


def _number(text: str, real: bool) -> Any:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{_short(text)!r} is too long for a number")
    if _LEADING_ZERO.match(text):
        raise ValueError(_ambiguous(text))
    if _INT.fullmatch(text):
        whole = int(text, _BASES.get(text[:2], 10))
        if abs(whole) >= _LARGEST_INT:
            raise ValueError(f"{_short(text)!r} does not fit into 64 bits")
        return whole
    if _FLOAT.fullmatch(text) and abs(float(text)) < (float("inf") if real else _LARGEST_INT):
        return float(text)
    if real or _LIKE_A_NUMBER.match(text):
        raise ValueError(
            f"{text!r} is not a {'finite' if real else 'whole'} number; write it as 1000 or 2e-5"
        )
    return text  # a name, which some fields have for their numbers


def _ambiguous(text: str) -> str:
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text.lstrip("+"))
    whole = _LEADING_ZERO.fullmatch(text)
    octal = whole and set(digits) <= set("01234567")
    meant = f"{sign}{digits.lstrip('0') or '0'}" if whole else "it without leading zeros"
    eight = f" (or {sign}{int(digits, 8)}, which YAML 1.1 reads here)" if octal and int(digits, 8) else ""
    return f"{text!r} has a leading zero; write {meant}{eight}"


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:20]}..."


def usual_number(text: str) -> str:
    """A decimal number as people write it, without needless zeros and signs: `0.1` for `1.0e-1`, `1e-5` for
    `0.00001`; other text as it is."""
    if not _FLOAT.fullmatch(text):
        return text
    try:
        number = Decimal(text).normalize()
    except DecimalException:  # an exponent of a million
        return text
    if number == 0:
        return "0"
    if _SMALLEST_PLAIN <= number.adjusted() < _LARGEST_PLAIN:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    first, *rest = map(str, digits)
    return f"{'-' if sign else ''}{first}{'.' if rest else ''}{''.join(rest)}e{number.adjusted()}"
