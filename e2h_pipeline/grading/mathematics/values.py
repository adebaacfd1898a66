r"""Values of expressions: exact where they are rational, to 90 digits where they are not.

Two expressions are equal if their values are: constants are compared as exact fractions or as numbers
to 90 digits; expressions with letters are compared at fixed points (positive, negative and of mixed
signs; the points come from the letters' names), where different rational functions of answer size
agree by chance with a probability below 1e-12. So `\frac{x}{2}` and `0.5x`, `\tan^2 y + 1` and
`\sec^2 y`, `\sqrt{8}` and `2\sqrt2` have the same key, and a dictionary does the comparing. (Schwartz
1980, "Fast probabilistic algorithms for verification of polynomial identities", is the same idea.)

Letters are real. Where a root, power, logarithm or inverse function of letters has no real value, the
expression is undefined, and the key says so. So expressions are equal if they are defined at the same
points and equal there: `x\sqrt{x}` is `\sqrt{x^3}`, but not `x\sqrt{|x|}`; a single point that is
missing (`x^2/x`) makes no difference. An expression without a real value at any point is compared by
its complex values.

Every operation is bounded: what would be too large or too slow raises `TooBig` before it starts.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from e2h_pipeline.grading.mathematics.parser import ExpressionNode
from e2h_pipeline.grading.mathematics.tokens import TooBig, Unreadable

Key = tuple[Any, ...]
"""A hashable value: nested tuples of strings and whole numbers."""

POINTS = 6
"""Where every expression with letters is evaluated."""
_MOST_POINTS = 16  # where an expression is looked at that has real values at few points
_DEFINED = 3  # real values that are enough
_MIXTURES = 10  # further points for functions of several letters that are not real everywhere
_FIRST_POINTS = 2  # where no limit of size may be met; at later points letters are larger
_BITS = 400
_KEPT_BITS = 300
_SPARE_BITS = 80
_EXACT_BITS = 4096
_LATER_BITS = 1000  # the largest binary exponent at later points
_GAMMA_BITS = 2600  # precision to which a factorial of no whole number is computed
_MAX_EXPONENT = 1 << 20  # of a floating value: about 10^300000
_MAX_FACTORIAL = 400
_MAX_ANGLE = 1 << 40
_SNAP = 10**6  # constants this close to a small fraction are that fraction

Number = Any
"""Fraction, or mpf / mpc of mpmath."""


class Undefined(Unreadable):
    """The expression has no value (a division by zero)."""


class _Local(threading.local):
    """An mpmath context per thread: other code cannot change its precision. `peak` is the largest binary
    exponent since it was last set to 0; `real` says whether letters keep to real values."""

    def __init__(self) -> None:
        import mpmath

        self.context = mpmath.MPContext()
        self.context.prec = _BITS
        self.context.peak = 0
        self.context.real = True


@cache
def _local() -> _Local:
    return _Local()


def _mp() -> Any:
    return _local().context


# Keys


def scalar_key(node: ExpressionNode) -> Key:
    """The key of an expression that is a number or has letters.

    Raises:
        Unreadable: it has no value that we can compute.
    """
    found = _values(node)
    if any(isinstance(value, tuple) for value in found):
        return ("matrix", *(value and _matrix_key(value) for value in found))
    keys = [None if value is None else _rounded_key(value) for value in found]
    if len(set(keys)) == 1:  # a constant, or x - x + 5
        return ("value", *number_key(_snapped(found[0])))
    return ("function", *keys)


def zero_set_key(node: ExpressionNode, directed: bool = False) -> Key:
    """The key of `node = 0` up to a constant factor; of `node > 0` (directed) up to a positive one."""
    found = _values(node)
    if any(isinstance(value, tuple) for value in found):
        raise Unreadable("an equation between matrices")
    if all(value is None or value == 0 for value in found):
        return ("always",)
    first = next(value for value in found if value is not None and value != 0)
    unit = abs(first) if directed else first
    return ("zero", *(value if value is None else _rounded_key(_divide(value, unit)) for value in found))


def mixed_signs_key(node: ExpressionNode) -> Key | None:
    r"""Of a function of two or more letters with roots or the like: its values where the letters have
    other mixtures of signs, which tell `\sqrt{a^2 b}` from `a\sqrt{b}`. None for other expressions."""
    if len(symbols(node)) < 2 or not _has_domain(node):
        return None
    found = [_real_value(node, point)[0][0] for point in range(_MOST_POINTS, _MOST_POINTS + _MIXTURES)]
    return tuple(
        value if value is None or isinstance(value, tuple) else _rounded_key(value) for value in found
    )


def _has_domain(node: ExpressionNode) -> bool:
    name = str(node.value) if node.kind == "call" else node.kind
    own = name in _OUTSIDE and not (node.kind == "pow" and _is_whole(node.args[1]))
    return own or any(_has_domain(arg) for arg in node.args)


def _is_whole(node: ExpressionNode) -> bool:
    if node.kind == "neg":
        return _is_whole(node.args[0])
    return isinstance(node.value, Fraction) and node.value.denominator == 1


def _values(node: ExpressionNode) -> list[Number | None]:
    """The value of a constant, or the values at the points, None where there is no real one; with as
    many more digits as the largest number on the way has."""
    mp = _mp()
    found, peak = _at_points(node)
    if peak <= _SPARE_BITS:
        return found
    if peak > _EXACT_BITS:
        raise TooBig("a number with too many digits")
    with mp.workprec(_BITS + 2 * peak):
        return _at_points(node)[0]


def _at_points(node: ExpressionNode) -> tuple[list[Number | None], int]:
    """Values at the points, and the largest binary exponent on the way to them."""
    if not symbols(node):
        return _with_peak(node, 0)
    found: list[Number | None] = []
    peak = 0
    while len(found) < POINTS or (_count_defined(found) < _DEFINED and len(found) < _MOST_POINTS):
        values, height = _real_value(node, len(found))
        found += values
        peak = max(peak, height)
    return (found, peak) if _count_defined(found) else _complex_values(node)


def _count_defined(found: Sequence[Number | None]) -> int:
    return sum(value is not None for value in found)


def _real_value(node: ExpressionNode, point: int) -> tuple[list[Number | None], int]:
    """The value at a point: None where there is no real one, or at a later point where it is too big."""
    try:
        values, peak = _with_peak(node, point)
    except Undefined:
        return [None], 0
    except TooBig:
        if point < _FIRST_POINTS:
            raise
        return [None], 0
    return (values, peak) if peak <= _LATER_BITS or point < _FIRST_POINTS else ([None], 0)


def _with_peak(node: ExpressionNode, point: int) -> tuple[list[Number | None], int]:
    mp = _mp()
    mp.peak = 0
    value = evaluate(node, point)
    return [value], mp.peak


def _complex_values(node: ExpressionNode) -> tuple[list[Number | None], int]:
    """Values of what is never real, such as the root of `-x^2-1`."""
    mp = _mp()
    mp.real = False
    try:
        found = [_with_peak(node, point) for point in range(_FIRST_POINTS)]
    finally:
        mp.real = True
    return [value for values, _ in found for value in values], max(peak for _, peak in found)


def _matrix_key(value: Any) -> Key:
    if not isinstance(value, tuple):
        raise Unreadable("a matrix and a number")
    return tuple(tuple(number_key(_snapped(cell)) for cell in row) for row in value)


def number_key(value: Number) -> Key:
    """A constant: fractions as they are, other numbers rounded to about 90 digits."""
    if isinstance(value, Fraction):
        return ("q", value.numerator, value.denominator)
    return _rounded_key(value)


def _rounded_key(value: Number) -> Key:
    """A number rounded to `_KEPT_BITS` behind the binary point, or in all if it is smaller than 1."""
    if isinstance(value, Fraction):
        return ("r", *_rounded_fraction(value.numerator, value.denominator))
    mp = _mp()
    if value.imag == 0 or (value.real != 0 and mp.mag(value.imag) < mp.mag(value.real) - _KEPT_BITS):
        return ("r", *_rounded(value.real))
    if value.real == 0 or mp.mag(value.real) < mp.mag(value.imag) - _KEPT_BITS:
        return ("i", *_rounded(value.imag))
    return ("c", *_rounded(value.real), *_rounded(value.imag))


def _rounded(value: Any) -> tuple[int, int]:
    """Mantissa and exponent of an mpf after rounding."""
    if value == 0:
        return (0, 0)
    if not _mp().isfinite(value):
        raise Undefined("it is not finite")
    sign, mantissa, exponent, bits = value._mpf_
    excess = bits - _KEPT_BITS - max(0, exponent + bits)
    if excess > 0:
        mantissa = (mantissa + (1 << (excess - 1))) >> excess
        exponent += excess
    return _odd(-mantissa if sign else mantissa, exponent)


def _rounded_fraction(above: int, below: int) -> tuple[int, int]:
    """`_rounded` of a fraction, without a float on the way."""
    if not above:
        return (0, 0)
    size = abs(above)
    magnitude = size.bit_length() - below.bit_length()
    magnitude += size >= below << magnitude if magnitude >= 0 else size << -magnitude >= below
    shift = _KEPT_BITS + max(0, magnitude) - magnitude
    mantissa = ((size << (shift + 1)) // below + 1) >> 1
    return _odd(mantissa if above > 0 else -mantissa, -shift)


def _odd(mantissa: int, exponent: int) -> tuple[int, int]:
    """The same number with an odd mantissa."""
    zeros = (mantissa & -mantissa).bit_length() - 1 if mantissa else 0
    return (mantissa >> zeros, exponent + zeros)


def _snapped(value: Number) -> Number:
    """A constant that agrees with a small fraction to all its digits, as that fraction."""
    if isinstance(value, Fraction):
        return value
    mp = _mp()
    real, imaginary = value.real, value.imag
    if imaginary != 0 and (real == 0 or mp.mag(imaginary) >= mp.mag(real) - _KEPT_BITS):
        return value
    near = _small_fraction(real)
    return real if near is None else near


def _small_fraction(value: Any) -> Fraction | None:
    mp = _mp()
    if value == 0:
        return Fraction(0)
    if not mp.isfinite(value) or not -_SPARE_BITS < mp.mag(value) < _SPARE_BITS:
        return None
    sign, mantissa, exponent, _ = value._mpf_
    exact = Fraction(mantissa) * Fraction(2) ** exponent * (-1 if sign else 1)
    near = exact.limit_denominator(_SNAP)
    return near if abs(near - exact) < Fraction(1, 1 << (_KEPT_BITS - 20)) * max(1, abs(exact)) else None


# Letters


@lru_cache(maxsize=4096)
def symbols(node: ExpressionNode) -> frozenset[str]:
    """Names of the letters in an expression that stand for unknown values."""
    if node.kind == "symbol":
        name = str(node.value)
        return frozenset() if name in ("i", "e") else frozenset([name])
    own = frozenset([f"{node.value}()"]) if _is_opaque(node) else frozenset()
    return own.union(*(symbols(arg) for arg in node.args))


def _is_opaque(node: ExpressionNode) -> bool:
    return node.kind == "call" and str(node.value).split()[0] in ("f", "binder", "mark")


_SIZES = (
    *((11, 8), (11, 8), (5, 4), (500, 150), (500, 100), (60, 240)),
    *((60, 240), (20, 40), (20, 40), (1, 2), (1, 2), (1000, 9000), (1000, 9000), (11, 8), (11, 8), (5, 4)),
)
"""Tenths: the smallest size of a letter at a point, and how much larger it may be."""


@lru_cache(maxsize=16384)
def _place(name: str, point: int) -> Fraction:
    """Where a letter stands at a point."""
    least, more = _SIZES[point % len(_SIZES)]
    digest = hashlib.sha256(f"{name} {point}".encode()).digest()
    size = Fraction(least, 10) + Fraction(int.from_bytes(digest[:3], "big") * more, 10 << 24)
    return -size if _is_negative(ord(name[-1]), point) else size


def _is_negative(letter: int, point: int) -> bool:
    """All are positive at the first point and negative at the second. Then letters of one class are
    negative and the others positive, or the other way round, so that neighbours have mixed signs."""
    if point < 2:
        return point == 1
    if point < POINTS:
        return (letter % 3 == 0, letter % 3 == 1, letter % 3 == 2, letter % 3 != 2)[point - 2]
    if point < _MOST_POINTS:
        return bool(point % 2)
    return bool(letter >> (point - _MOST_POINTS) // 2 & 1) == bool(point % 2)


# Evaluation


def evaluate(node: ExpressionNode, point: int) -> Number:
    """The value at a point: a number, or rows of numbers for a matrix.

    Raises:
        Unreadable: no number (a list, words); TooBig: over a limit; Undefined: a division by zero.
    """
    if node.kind == "number":
        return node.value
    operation = _OPERATIONS.get(node.kind)
    if operation is not None:
        return _applied(operation, node, point)
    if node.kind == "symbol":
        return _symbol(str(node.value), point)
    if node.kind == "constant":
        if node.value == "pi":
            return +_mp().pi
        raise Unreadable(f"{node.value} is not a number")
    if node.kind == "matrix" and node.value in ("matrix", "determinant"):
        rows = tuple(tuple(evaluate(cell, point) for cell in row.args) for row in node.args)
        if len({len(row) for row in rows}) != 1 or any(
            isinstance(cell, tuple) for row in rows for cell in row
        ):
            raise Unreadable("rows of different lengths")
        return rows if node.value == "matrix" else _determinant(rows)
    if node.kind == "quantity" and node.value == "degree":
        return _multiply(evaluate(node.args[0], point), _multiply(+_mp().pi, Fraction(1, 180)))
    if node.kind == "quantity" and node.value == "%":
        return _multiply(evaluate(node.args[0], point), Fraction(1, 100))
    if node.kind == "ratio":
        parts = [evaluate(arg, point) for arg in node.args]
        if len(parts) == 2:
            return _divide(parts[0], parts[1])
    if _is_opaque(node):
        return _opaque(node, point)
    if node.kind == "sequence" and node.value in ("()", ","):
        return (tuple(evaluate(arg, point) for arg in node.args),)
    operation = _FUNCTIONS.get(str(node.value)) if node.kind == "call" else None
    if operation is None:
        raise Unreadable(f"{node.kind} {node.value} has no value")
    return _applied(operation, node, point)


def _applied(operation: Callable[..., Number], node: ExpressionNode, point: int) -> Number:
    """The value of an operation on the values of its arguments."""
    args = [evaluate(arg, point) for arg in node.args]
    outside = _OUTSIDE.get(str(node.value) if node.kind == "call" else node.kind)
    if outside is not None and _leaves_the_reals(outside, node, args):
        raise Undefined("no real value")
    try:
        return _checked(operation(*args))
    except ZeroDivisionError:
        raise Undefined("a division by zero") from None
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{node.kind} {node.value} cannot be computed") from None


def _symbol(name: str, point: int) -> Number:
    if name == "i":
        return _mp().mpc(0, 1)
    if name == "e":
        return +_mp().e
    return _place(name, point)


def _opaque(node: ExpressionNode, point: int) -> Number:
    """A function we know nothing of: a number that depends on its name and arguments only."""
    parts: list[object] = [node.value]
    for arg in node.args:
        for side in arg.args if arg.kind == "relation" else (arg,):
            try:
                parts.append(_rounded_key(evaluate(side, point)))
            except TooBig:
                raise
            except Unreadable:  # a bound that is no number: as it stands
                parts.append(side)
    return _place(repr(parts), point)


def _leaves_the_reals(outside: Callable[..., bool], node: ExpressionNode, args: Sequence[Number]) -> bool:
    """Whether a function of letters has no real value here. Constants may be complex (`\\sqrt{-3}`)."""
    if not _mp().real or any(isinstance(arg, tuple) or arg.imag != 0 for arg in args):
        return False
    return bool(outside(*args)) and bool(symbols(node.args[0]))


def _is_even(index: Number) -> bool:
    return not (isinstance(index, Fraction) and index.denominator == 1 and index.numerator % 2)


def _has_no_real_power(a: Number, b: Number) -> bool:
    return a < 0 and not (isinstance(b, Fraction) and b.denominator % 2)


_OUTSIDE: Mapping[str, Callable[..., bool]] = {
    "pow": _has_no_real_power,
    "root": lambda a, index=Fraction(2): a < 0 and _is_even(index),
    **dict.fromkeys(("log", "lg", "ln", "log base"), lambda a, base=1: a < 0 or base < 0),
    **dict.fromkeys(("arcsin", "arccos", "arctanh"), lambda a: abs(a) > 1),
    **dict.fromkeys(("arcsec", "arccsc"), lambda a: abs(a) < 1),
    "arccosh": lambda a: a < 1,
}
"""Where functions of real numbers have no real value."""


def _checked(value: Number) -> Number:
    """Large fractions become floats, values out of range are too big."""
    if isinstance(value, Fraction):
        size = value.numerator.bit_length() + value.denominator.bit_length()
        return value if size <= _EXACT_BITS else _float(value)
    if isinstance(value, tuple):
        return tuple(tuple(_checked(cell) for cell in row) for row in value)
    mp = _mp()
    for part in (value.real, value.imag):
        if not mp.isfinite(part):
            raise Undefined("it is not finite")
        size = abs(mp.mag(part)) if part != 0 else 0
        if size > _MAX_EXPONENT:
            raise TooBig("a number out of range")
        mp.peak = max(mp.peak, size)
    return value.real if isinstance(value, mp.mpc) and value.imag == 0 else value


def _float(value: Number) -> Any:
    mp = _mp()
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    return value


def _add(a: Number, b: Number) -> Number:
    if isinstance(a, tuple) or isinstance(b, tuple):
        if not (isinstance(a, tuple) and isinstance(b, tuple)) or _shape(a) != _shape(b):
            raise Unreadable("a sum of different shapes")
        return tuple(
            tuple(_add(x, y) for x, y in zip(row, other, strict=True))
            for row, other in zip(a, b, strict=True)
        )
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    total = _float(a) + _float(b)
    mp = _mp()
    noise = max((mp.mag(x) for x in (_float(a), _float(b)) if x), default=0) - mp.prec + 60
    parts = [mp.zero if p != 0 and mp.mag(p) < noise else p for p in (total.real, total.imag)]
    return mp.mpc(*parts) if parts[1] else parts[0]  # an imaginary part below the noise is 0


def _negative(a: Number) -> Number:
    if isinstance(a, tuple):
        return tuple(tuple(-cell for cell in row) for row in a)
    return -a


def _multiply(a: Number, b: Number) -> Number:
    if isinstance(a, tuple) and isinstance(b, tuple):
        if len(a[0]) != len(b):
            raise Unreadable("a product of shapes that do not fit")
        columns = list(zip(*b, strict=True))
        return tuple(tuple(_dot(row, column) for column in columns) for row in a)
    if isinstance(a, tuple):
        return tuple(tuple(_multiply(cell, b) for cell in row) for row in a)
    if isinstance(b, tuple):
        return _multiply(b, a)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _float(a) * _float(b)


def _dot(row: tuple[Number, ...], column: tuple[Number, ...]) -> Number:
    total: Number = Fraction(0)
    for a, b in zip(row, column, strict=True):
        total = _add(total, _multiply(a, b))
    return total


def _divide(a: Number, b: Number) -> Number:
    if isinstance(b, tuple):
        raise Unreadable("a division by a matrix")
    if b == 0:
        raise Undefined("a division by zero")
    if isinstance(a, tuple):
        return tuple(tuple(_divide(cell, b) for cell in row) for row in a)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    return _float(a) / _float(b)


def _power(a: Number, b: Number) -> Number:
    if isinstance(a, tuple) or isinstance(b, tuple):
        raise Unreadable("a power of a matrix")
    if isinstance(b, Fraction) and b.denominator == 1:
        exponent = int(b)
        if a == 0 and exponent <= 0:
            raise Undefined("zero to the power zero")
        if isinstance(a, Fraction):
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if abs(exponent) * bits <= _EXACT_BITS or abs(a) == 1:
                return a**exponent if abs(a) != 1 else a ** (exponent % 2)
    if isinstance(b, Fraction) and b.denominator % 2 and b.denominator > 1 and a.imag == 0 and a.real < 0:
        return -_power(-a, b) if b.numerator % 2 else _power(-a, b)  # the real root, as schools define it
    base, exponent = _float(a), _float(b)
    if base == 0:
        if exponent.real > 0:
            return Fraction(0)
        raise Undefined("zero to a power that is not positive")
    mp = _mp()
    if mp.mag(exponent) > 40 or abs(exponent) * (abs(mp.mag(base)) + 1) > _MAX_EXPONENT:
        raise TooBig("a power out of range")
    return mp.power(base, exponent)


def _root(a: Number, index: Number = Fraction(2)) -> Number:
    if isinstance(a, tuple) or isinstance(index, tuple):
        raise Unreadable("a root of a matrix")
    if isinstance(a, Fraction) and isinstance(index, Fraction) and index.denominator == 1:
        degree = int(index)
        if degree > 1 and degree % 2 and a < 0:  # the real odd root
            return -_root(-a, index)
        if degree == 2 and a >= 0:
            above, below = math.isqrt(a.numerator), math.isqrt(a.denominator)
            if above**2 == a.numerator and below**2 == a.denominator:
                return Fraction(above, below)
    elif isinstance(index, Fraction) and index.denominator == 1 and int(index) % 2 and index > 1:
        value = _float(a)
        if value.imag == 0 and value.real < 0:
            return -_root(-value, index)
    if isinstance(index, Fraction) and index == 2:
        return _mp().sqrt(_float(a))
    return _power(a, _divide(Fraction(1), index))


def _factorial(a: Number) -> Number:
    if isinstance(a, Fraction) and a.denominator == 1:
        if not 0 <= a <= _MAX_FACTORIAL:
            raise TooBig("a factorial out of range")
        return Fraction(math.factorial(int(a)))
    if abs(a) > _MAX_FACTORIAL or _mp().prec > _GAMMA_BITS:
        raise TooBig("a factorial out of range")
    return _mp().gamma(_float(a) + 1)


def _double_factorial(a: Number) -> Number:
    if not isinstance(a, Fraction) or a.denominator != 1:
        raise Unreadable("a double factorial of no whole number")
    if not 0 <= a <= _MAX_FACTORIAL:
        raise TooBig("a double factorial out of range")
    return Fraction(math.prod(range(int(a), 0, -2)))


def _binomial(a: Number, b: Number) -> Number:
    if all(isinstance(x, Fraction) and x.denominator == 1 for x in (a, b)):
        if not (0 <= a <= 10 * _MAX_FACTORIAL and 0 <= b <= 10 * _MAX_FACTORIAL):
            raise TooBig("a binomial out of range")
        return Fraction(math.comb(int(a), int(b)))
    if abs(a) > _MAX_FACTORIAL or abs(b) > _MAX_FACTORIAL or _mp().prec > _GAMMA_BITS:
        raise TooBig("a binomial out of range")
    return _mp().binomial(_float(a), _float(b))


def _logarithm(a: Number, base: Number = Fraction(10)) -> Number:
    if a == 0 or base in (0, 1):
        raise Undefined("a logarithm of zero")
    mp = _mp()
    return mp.log(_float(a)) / mp.log(_float(base))


def _natural_logarithm(a: Number) -> Number:
    return _multiply(_logarithm(a), _mp().log(10))


def _floor(a: Number) -> Number:
    return Fraction(math.floor(_whole(a)))


def _ceiling(a: Number) -> Number:
    return Fraction(math.ceil(_whole(a)))


def _whole(a: Number) -> Number:
    """A real number on its way to a whole one; 2.999... that is 3 to 45 digits is 3."""
    value = _snapped(a)
    if not isinstance(value, Fraction) and value.imag != 0:
        raise Unreadable("a complex number where a real one should be")
    return value if isinstance(value, Fraction) else value.real


def _modulo(a: Number, b: Number) -> Number:
    if not (isinstance(a, Fraction) and isinstance(b, Fraction)) or b == 0:
        raise Unreadable("a remainder of no numbers")
    return a % b


def _integers(args: tuple[Number, ...]) -> list[int]:
    if not all(isinstance(a, Fraction) and a.denominator == 1 for a in args):
        raise Unreadable("whole numbers are needed")
    return [int(a) for a in args]


def _determinant(rows: tuple[tuple[Number, ...], ...]) -> Number:
    size = len(rows)
    if any(len(row) != size for row in rows) or size > 4:
        raise Unreadable("a determinant of this shape")
    if size == 1:
        return rows[0][0]
    total: Number = Fraction(0)
    for column, cell in enumerate(rows[0]):
        minor = tuple(row[:column] + row[column + 1 :] for row in rows[1:])
        term = _multiply(cell, _determinant(minor))
        total = _add(total, term if column % 2 == 0 else -term)
    return total


def _size(a: Number) -> Number:
    if isinstance(a, tuple):
        raise Unreadable("a norm")
    return abs(a)


def _shape(a: tuple[tuple[Number, ...], ...]) -> tuple[int, int]:
    return len(a), len(a[0])


def _of_context(
    name: str, limit: int = _MAX_ANGLE, exact_zero: int | None = None
) -> Callable[[Number], Number]:
    """A function of mpmath for arguments up to a limit."""

    def function(a: Number) -> Number:
        if isinstance(a, tuple):
            raise Unreadable(f"{name} of a matrix")
        if exact_zero is not None and a == 0:
            return Fraction(exact_zero)
        if abs(a) > limit:
            raise TooBig(f"{name} of a number this size")
        mp = _mp()
        value = getattr(mp, name)(_float(a))
        noise = 60 - mp.prec  # rounding leaves it of sin(pi); of a small number it is the sine itself
        small = a != 0 and mp.mag(_float(a)) < -_SPARE_BITS
        parts = [
            mp.zero if p != 0 and mp.mag(p) < noise and not small else p for p in (value.real, value.imag)
        ]
        return mp.mpc(*parts) if parts[1] else parts[0]

    return function


_OPERATIONS: Mapping[str, Callable[..., Number]] = {
    "add": _add, "mul": _multiply, "neg": _negative, "div": _divide, "pow": _power,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "root": _root, "factorial": _factorial, "double factorial": _double_factorial, "binomial": _binomial, "abs": _size,
    "log": _logarithm, "log base": _logarithm, "lg": _logarithm, "ln": _natural_logarithm,
    "exp": _of_context("exp", _MAX_EXPONENT // 2, 1), "floor": _floor, "ceil": _ceiling, "mod": _modulo,
    **{name: _of_context(name, exact_zero=0) for name in ("sin", "tan", "sinh", "tanh")},
    **{name: _of_context(name, exact_zero=1) for name in ("cos", "cosh")},
    **{name: _of_context(name) for name in ("cot", "sec", "csc", "coth", "arg")},
    **{f"arc{name}": _of_context(f"a{name}") for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{f"arc{name}": _of_context(f"a{name}") for name in ("sinh", "cosh", "tanh")},
    "gcd": lambda *args: Fraction(math.gcd(*_integers(args))),
    "lcm": lambda *args: Fraction(math.lcm(*_integers(args))),
    "max": lambda *args: max(map(_whole, args), key=_float), "min": lambda *args: min(map(_whole, args), key=_float),
    "cis": lambda a: _mp().expj(_float(a)),
}  # fmt: skip
