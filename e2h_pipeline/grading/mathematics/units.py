"""Units and words of answers: which there are, and what a quantity is in SI."""

from __future__ import annotations

import re
from fractions import Fraction

FUNCTION_WORDS = frozenset((
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin", "arccos",
    "arctan", "arccot", "arcsec", "arccsc", "arcsinh", "arccosh", "arctanh", "log", "ln", "lg", "exp",
    "max", "min", "gcd", "lcm", "det", "deg", "sgn", "Re", "Im", "abs", "floor", "ceil", "arg", "cis",
))  # fmt: skip

# name: (dimension, factor to the dimension's base unit)
_UNITS: dict[str, tuple[str, Fraction]] = {}


def _add(dimension: str, table: dict[str, str]) -> None:
    for names, factor in table.items():
        for name in names.split():
            _UNITS[name] = (dimension, Fraction(factor))


_add("length", {
    "m meter meters metre metres": "1", "cm centimeter centimeters centimetre centimetres": "1/100",
    "mm millimeter millimeters millimetre millimetres": "1/1000", "km kilometer kilometers kilometre kilometres": "1000",
    "in inch inches": "127/5000", "ft foot feet": "381/1250", "yd yard yards": "1143/1250",
    "mi mile miles": "1609344/1000",
})  # fmt: skip
_add("time", {
    "s sec second seconds": "1", "min minute minutes": "60", "h hr hrs hour hours": "3600", "day days": "86400",
    "week weeks": "604800", "month months": "2629800", "year years yr yrs": "31557600",
})  # fmt: skip
_add("mass", {
    "g gram grams": "1", "kg kilogram kilograms": "1000", "mg milligram milligrams": "1/1000",
    "lb lbs pound pounds": "45359237/100000", "oz ounce ounces": "45359237/1600000", "ton tons": "1000000",
})  # fmt: skip
_add("volume", {
    "L l liter liters litre litres": "1", "ml mL milliliter milliliters": "1/1000",
    "gallon gallons": "473176473/125000000", "quart quarts": "473176473/500000000",
    "pint pints": "473176473/1000000000", "cup cups": "473176473/2000000000",
})  # fmt: skip
_add("money", {
    "$ dollar dollars usd": "1", "cent cents": "1/100", "yuan": "1/7", "euro euros": "11/10", "pound sterling": "5/4",
})  # fmt: skip
_add("angle", {"degree degrees deg": "1", "radian radians rad": "180000000/3141593"})
_add("celsius", {"C celsius": "1"})
_add("fahrenheit", {"F fahrenheit": "1"})
_add("percent", {"% percent percents percentage pct": "1"})

_LETTERS = frozenset("msghLl")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "squared": 2, "cubed": 3}
_IDLE = frozenset((
    "unit", "units", "of", "the", "a", "an", "per", "each", "total", "about", "approximately", "answer",
    "and", "is", "are",
))  # fmt: skip
_PART = re.compile(r"[a-zA-Z%$]+(?:\^[0-9]+)?|/")

Measure = tuple[tuple[tuple[str, int], ...], Fraction]
"""Dimensions with their powers, sorted, and the factor to base units."""


def is_unit_letter(letter: str) -> bool:
    """A letter that behind a number and a space is a unit (`10 m`)."""
    return letter in _LETTERS


def is_unit_word(word: str) -> bool:
    """A word that names a unit."""
    return len(word) > 1 and (word in _UNITS or word.lower() in _UNITS or word.lower() in _POWERS)


def measure(text: str) -> Measure | None:
    """The measure that words name (`square inches`, `cm^2`, `miles per hour`); None for other words."""
    powers: dict[str, int] = {}
    factor = Fraction(1)
    direction, prefix = 1, 1
    for part in _PART.findall(text.replace(" per ", " / ")):
        if part == "/":
            direction = -1
            continue
        name, _, exponent = part.partition("^")
        if name.lower() in _POWERS:
            prefix = _POWERS[name.lower()]
            continue
        found = _UNITS.get(name) or _UNITS.get(name.lower())
        if found is None:
            if name.lower() in _IDLE:
                continue
            return None
        if len(exponent) > 1:
            return None
        power = direction * prefix * int(exponent or 1)
        prefix = 1
        powers[found[0]] = powers.get(found[0], 0) + power
        factor *= found[1] ** power
    kept = tuple(sorted((name, power) for name, power in powers.items() if power))
    return (kept, factor) if kept else None
