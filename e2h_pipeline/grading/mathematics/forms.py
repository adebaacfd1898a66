r"""Canonical forms of answers: keys to compare by hash, and marks that forbid a match.

An answer may be read in more than one way: `x = 5` as an equation or as 5, `10\%` as 10 or as 1/10,
`0 < x < 1` as inequalities or as the interval, `1:2` as a ratio or as 1/2. A form holds a key per
reading, the most literal first. Two answers are equal if they share a key and no mark of one
contradicts the same mark of the other:

- measure: a unit, currency, per cent or angle. Where both answers have one, the measured
  values decide (8 feet is 96 inches and not 8 inches); where one has none, the bare number does.
- name: `x` in `x = 5`. `x = 5` equals `5`, not `y = 5`.
- order: of a bare list that is not in ascending order. `3, 1, 2` equals `1, 2, 3` (written in ascending
  order, a list says nothing by its order) but not `2, 1, 3`. Lists with `and` or `or`, with braces or
  with roots of both signs have no order; pairs and longer tuples in brackets are compared in order.

Within one problem the marks are settled once (`MathGrader.classes`), which makes equality transitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, product

from e2h_pipeline.grading.mathematics.parser import CONSTANTS, ExpressionNode, parse
from e2h_pipeline.grading.mathematics.tokens import TooBig, Unreadable, clean
from e2h_pipeline.grading.mathematics.units import measure
from e2h_pipeline.grading.mathematics.values import (
    Key,
    evaluate,
    number_key,
    scalar_key,
    symbols,
    zero_set_key,
)

_MAX_SIGNS = 4  # of plus-minus signs that are expanded


@dataclass(frozen=True, slots=True)
class Form:
    """An answer's readings and marks.

    Attributes:
        keys: a key per reading, the most literal first; never empty.
        measure, name, order: the marks, None where the answer has none.
        certain: False where a limit was met: the keys say what is written, not what it comes to.
        opaque: it holds a sum, integral or limit, which we compare as it is written.
    """

    keys: tuple[Key, ...]
    measure: Key | None = None
    name: Key | None = None
    order: Key | None = None
    certain: bool = True
    opaque: bool = False

    def equals(self, other: Form) -> bool:
        """Symmetric; see the module."""
        if self.measure is not None and other.measure is not None:
            same = self.measure == other.measure
        else:
            same = not set(self.keys).isdisjoint(other.keys)
        return same and _agree(self.name, other.name) and _agree(self.order, other.order)


def _agree(one: Key | None, other: Key | None) -> bool:
    return one is None or other is None or one == other


def form(text: str) -> Form:
    """The form of an answer.

    Raises:
        Unreadable: the text is no mathematics we know; TooBig: over a limit.
    """
    text = _IMPLIES.split(text)[-1]
    spelled = _spelled(text)
    if spelled is not None:
        return spelled
    try:
        tree = parse(text)
        try:
            found = _form(tree)
            return replace(found, opaque=True) if _is_opaque(tree) else found
        except TooBig:
            return Form((("tree", repr(tree)),), certain=False)
    except RecursionError:
        raise TooBig("nested too deeply") from None


_IMPLIES = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow|therefore)(?![a-zA-Z])|⇒|∴|=>")


def _is_opaque(node: ExpressionNode) -> bool:
    return str(node.value).startswith("binder ") or any(_is_opaque(arg) for arg in node.args)


# Words

_TEXT_BOX = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(
    r"\(?([A-J])\)|([A-J])[.:)]\s+\S.*|\(([A-J])\)\s*[:.]?\s*\S.*|([A-J])\s+[A-Z]\w*", re.DOTALL
)
_CLOCK = re.compile(r"([0-2]?\d):([0-5]\d)(?::([0-5]\d))?\s*(?:([ap])\.*\s*(?:m\.*)?)?", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+(?:['’ -]+[^\W\d_]+)*", re.UNICODE)
_DAY = re.compile(r"[A-Z][a-z]{2,} \d{1,4}")  # June 20
_NOTHING = ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "none")
_SIZED = re.compile(r"\\(?:left|right)\s*|\s")
_BRACKETED_THOUSANDS = re.compile(r"(-?)\((-?)([1-9]\d{0,2}(?:,\d{3}){1,30})\)")
_DECIMAL_COMMA = re.compile(r"(-?)(\d+),(\d\d|\d{4,}|(?<=\b0,)\d{2,})")


def _spelled(text: str) -> Form | None:
    """Forms that are read from the text as it stands: choices, times of day, words, decimal commas."""
    bare = text.strip()
    unboxed = _TEXT_BOX.sub(r"\1", bare).strip().rstrip(".").strip()
    if not unboxed or len(unboxed) > 200:
        return None
    choice = _CHOICE.fullmatch(unboxed)
    if choice is not None:
        letter = next(group for group in choice.groups() if group)
        words = unboxed[unboxed.index(letter) + 1 :].strip(" ):.")
        own = (_letter_key(letter),)
        return Form((*own, _words_key(words)) if words and _WORDS.fullmatch(words) else own)
    if len(unboxed) == 1 and unboxed.isascii() and unboxed.isalpha():
        return Form((_letter_key(unboxed),))
    clock = _CLOCK.fullmatch(clean(unboxed).replace(" :", ":").replace(": ", ":")) if ":" in unboxed else None
    if clock is not None:
        hour, minute, second, half = clock.groups()
        ratio = () if second or half or int(minute) == 0 else _form(parse(unboxed)).keys
        part = (half or "").lower()
        return Form(
            (("clock", int(hour), int(minute), int(second or 0)), *ratio), ("half", part) if part else None
        )
    thousands = _BRACKETED_THOUSANDS.fullmatch(_SIZED.sub("", unboxed))
    if thousands is not None:  # a pair, or a number
        value = Fraction(thousands[3].replace(",", "")) * (1 if thousands[1] == thousands[2] else -1)
        return Form((*_keys_or_none(unboxed), ("value", *number_key(value))))
    comma = _DECIMAL_COMMA.fullmatch(unboxed)
    if comma is not None:
        sign, whole, digits = comma.groups()
        value = Fraction(f"{sign}{whole}.{digits}")
        return Form((("value", *number_key(value)), *_form(parse(unboxed)).keys))
    if _DAY.fullmatch(unboxed) is not None:
        return Form((_words_key(unboxed), ("value", *number_key(Fraction(unboxed.split()[1])))))
    if len(unboxed) > 1 and _WORDS.fullmatch(unboxed) and not _joins(unboxed) and unboxed not in CONSTANTS:
        keys: tuple[Key, ...] = (_words_key(unboxed),)
        if unboxed.lower() in _NOTHING:
            keys += (("constant", "empty"),)
        if len(unboxed) <= 4:  # xy, AB
            keys += _keys_or_none(unboxed)
        return Form(keys)
    return None


def _joins(text: str) -> bool:
    words = text.lower().split()
    return "and" in words or "or" in words


def _letter_key(letter: str) -> Key:
    """A letter alone is a choice or an unknown; `\\text{E}` and `E` are the same answer."""
    return scalar_key(ExpressionNode("symbol", value=letter))


def _words_key(text: str) -> Key:
    words = re.sub(r"[^\w]+", " ", text).lower().split()
    return ("words", *(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words))


def _keys_or_none(text: str) -> tuple[Key, ...]:
    try:
        return _form(parse(text)).keys
    except Unreadable:
        return ()


# Trees


def _form(node: ExpressionNode) -> Form:
    if _has(node, "pm"):
        return _both_signs(node)
    if node.kind == "text":
        return _text(str(node.value))
    if node.kind == "quantity":
        return _quantity(node)
    if node.kind == "base":
        return _based(node)
    if node.kind == "relation":
        return _relation(node)
    if node.kind == "ratio":
        return _ratio(node)
    if node.kind in ("union", "intersection", "difference"):
        return Form((_set_operation(node),))
    if node.kind == "matrix" and node.value == "cases":
        return _list([_form(_row_item(row)) for row in node.args], ordered=False)
    if node.kind == "sequence":
        return _sequence(node)
    if node.kind == "constant" and node.value != "pi":
        return Form((("constant", node.value),))
    if node.kind in ("neg", "add") and _is_infinite(node):
        return Form((("constant", "inf", -1 if node.kind == "neg" else 1),))
    key = scalar_key(node)
    if key[0] == "matrix" and len(key) == 2:
        return Form((key, *_as_tuple(key[1])))
    if node.kind == "call" and str(node.value).startswith("mark "):
        return Form((key, *_form(node.args[0]).keys))
    return Form((key,))


def _text(text: str) -> Form:
    inner = text.strip()
    found = _spelled(inner)
    if found is not None:
        return found
    if not inner:
        raise Unreadable("no words")
    try:
        return _form(parse(inner))
    except Unreadable:
        return Form((_words_key(inner),))


def _quantity(node: ExpressionNode) -> Form:
    """A number with words behind it: a known unit is a mark, other words are a comment."""
    value = node
    words: list[str] = []
    while value.kind == "quantity":  # 2 million dollars, $2 million
        words = [*str(value.value).split(), *words]
        value = value.args[0]
    for word in words:
        if word.lower() in _MULTIPLES:
            value = ExpressionNode("mul", (value, _number(_MULTIPLES[word.lower()])))
    inner = _form(value)
    known = measure(" ".join(word for word in words if word.lower() not in _MULTIPLES))
    if known is None:
        return inner
    return _measured(inner, _value_of(value), *known)


def _measured(
    inner: Form, value: ExpressionNode, dimensions: tuple[tuple[str, int], ...], factor: Fraction
) -> Form:
    """A form with the mark of its measure; per cent and degrees have a reading without them."""
    try:
        size = evaluate(value, 0)
    except Unreadable:
        return inner
    if isinstance(size, tuple) or symbols(value):
        return inner
    keys = inner.keys
    if dimensions == (("percent", 1),):
        keys = (*keys, scalar_key(ExpressionNode("div", (value, _number(100)))))
    if dimensions == (("angle", 1),) and factor == 1:
        keys = (*keys, scalar_key(ExpressionNode("quantity", (value,), "degree")))
    scaled = size * factor if isinstance(size, Fraction) else size * factor.numerator / factor.denominator
    return Form(keys, ("measure", dimensions, number_key(scaled)), inner.name, inner.order)


_MULTIPLES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def _value_of(node: ExpressionNode) -> ExpressionNode:
    """The last side of `x = 5`."""
    return node.args[-1] if node.kind == "relation" else node


def _number(value: int) -> ExpressionNode:
    return ExpressionNode("number", value=Fraction(value))


_RADICES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _based(node: ExpressionNode) -> Form:
    """`204_5`: the number it is. It does not equal 204, nor 54: the answer is the digits in that base."""
    digits, base = (str(arg.value).replace(",", "") for arg in node.args)
    named = _RADICES.index(base) + 2 if base in _RADICES else 0
    radix = int(base) if base.isdecimal() and len(base) < 3 else named
    if not 2 <= radix <= 36 or len(digits) > 100:
        return Form((("based", digits, base),))
    whole, _, part = digits.partition(".")
    try:
        return Form((("based", *number_key(Fraction(int(whole + part, radix), radix ** len(part)))),))
    except ValueError:
        raise Unreadable(f"{digits} is no number in base {radix}") from None


def _ratio(node: ExpressionNode) -> Form:
    """`7:32` up to a common factor; a ratio of two parts is a fraction too."""
    if any(symbols(arg) for arg in node.args):
        keys = tuple(scalar_key(arg) for arg in node.args)
        return Form((("ratio", keys), *((scalar_key(node),) if len(keys) == 2 else ())))
    last = node.args[-1]
    shares = [scalar_key(ExpressionNode("div", (arg, last))) for arg in node.args]
    return Form((("ratio", tuple(shares)), *(shares[:1] if len(shares) == 2 else ())))


def _row_item(row: ExpressionNode) -> ExpressionNode:
    return row.args[0] if len(row.args) == 1 else ExpressionNode("sequence", row.args, ",")


# Lists, sets, intervals


def _sequence(node: ExpressionNode) -> Form:
    brackets = str(node.value)
    if not node.args:
        if brackets:
            return Form((("constant", "empty"),))
        raise Unreadable("nothing")
    if brackets in (",", "&", ";"):
        ranges = _ranges(node.args)
        if ranges is not None:
            return ranges
        return _list([_form(item) for item in _shared_name(node.args)], ordered=brackets == ",")
    items = [_form(item) for item in node.args]
    if brackets == "{}":
        return _list(items, ordered=False)
    keys = tuple(item.keys[0] for item in items)
    own: Key = ("tuple", brackets, keys)
    readings: list[Key] = [own]
    if brackets == "()":
        readings.append(("tuple", "", keys))
    name = tuple(item.name for item in items)
    measures = tuple(item.measure for item in items)
    if len(items) == 2 and brackets == "()" and keys == _WHOLE_LINE:
        readings.append(("constant", "reals"))
    return Form(
        tuple(readings),
        ("measures", measures) if all(m is not None for m in measures) else None,
        name if all(n is not None for n in name) else None,
    )


_WHOLE_LINE: Key = (("constant", "inf", -1), ("constant", "inf"))


def _shared_name(items: Sequence[ExpressionNode]) -> Sequence[ExpressionNode]:
    """`n = 1, 2, 3` names all three."""
    first, others = items[0], items[1:]
    named = first.kind == "relation" and first.value == "=" and first.args[0].kind in ("symbol", "call")
    if named and not any(item.kind in ("relation", "sequence") for item in others):
        return [first, *(ExpressionNode("relation", (first.args[0], item), "=") for item in others)]
    return items


def _list(items: list[Form], *, ordered: bool) -> Form:
    """A list without brackets, or a set. Doubles stay in a list and go from a set without order."""
    if len(items) == 1:
        return items[0]
    in_order = tuple(item.keys[0] for item in items)
    if all(key[0] == "list" for key in in_order):  # x = 1 +- 2 or x = 3
        in_order = tuple(key for group in in_order for key in group[1])
        items, ordered = [Form((key,)) for key in in_order], False
    if not ordered and len(set(in_order)) == 1 and in_order[0][0] != "list":
        return items[0]  # 3/24 or 1/8
    ranking = sorted(range(len(items)), key=lambda i: (repr(in_order[i]), repr(items[i].name)))
    sorted_keys = tuple(in_order[i] for i in ranking)
    keys: list[Key] = [("list", sorted_keys if ordered else tuple(dict.fromkeys(sorted_keys)))]
    if ordered:
        keys.append(("tuple", "", in_order))
    names = tuple(items[i].name for i in ranking)
    measures = tuple(items[i].measure for i in ranking)
    return Form(
        tuple(keys),
        ("measures", measures) if all(m is not None for m in measures) else None,
        ("names", names)
        if all(n is not None for n in names) and len(set(names)) > 1
        else _single_name(names),
        ("order", in_order) if ordered and len(items) > 2 and not _ascending(items) else None,
    )


def _single_name(names: tuple[Key | None, ...]) -> Key | None:
    return names[0] if names and len(set(names)) == 1 else None


def _ascending(items: Sequence[Form]) -> bool:
    """Whether a list ascends, or holds something without a size (points, words)."""
    values = [_size(item.keys[0]) for item in items]
    if any(value is None for value in values):
        return True
    numbers = [value for value in values if value is not None]
    return all(a <= b for a, b in pairwise(numbers))


def _size(key: Key) -> Fraction | None:
    """The number behind a key of a real constant."""
    if key[0] != "value":
        return None
    if key[1] == "q":
        return Fraction(key[2], key[3])
    if key[1] == "r":
        return Fraction(key[2]) * Fraction(2) ** key[3]
    return None


def _as_tuple(rows: tuple[Key, ...]) -> list[Key]:
    """A row or column vector as a tuple."""
    if len(rows) == 1:
        cells = rows[0]
    elif all(len(row) == 1 for row in rows):
        cells = tuple(row[0] for row in rows)
    else:
        return []
    return [("tuple", "", tuple(("value", *cell) for cell in cells))]


def _set_operation(node: ExpressionNode) -> Key:
    """Unions and intersections in any order; an interval without some points as a union."""
    if node.kind == "difference":
        pieces = _without_points(*node.args)
        if pieces is None:
            return ("difference", tuple(_form(arg).keys[0] for arg in node.args))
        node = ExpressionNode("union", tuple(pieces))
    parts = [part for arg in node.args for part in _flattened(arg, node.kind)]
    keys = [_form(part).keys[0] for part in parts]
    return (node.kind, tuple(sorted(set(keys), key=repr)))


def _without_points(whole: ExpressionNode, points: ExpressionNode) -> list[ExpressionNode] | None:
    """The pieces of an interval (or of the reals) between the points taken out; None if it is more involved."""
    if whole == ExpressionNode("constant", value="reals"):
        whole = ExpressionNode("sequence", (_MINUS_INFINITY, _INFINITY), "()")
    holes = points.args if points.kind == "sequence" and points.value == "{}" else (points,)
    sizes = [_size(_form(hole).keys[0]) for hole in holes]
    if whole.kind != "sequence" or len(whole.args) != 2 or any(size is None for size in sizes):
        return None
    low, high = (_size(_form(end).keys[0]) for end in whole.args)
    inside = sorted(
        (size, hole)
        for size, hole in zip(sizes, holes, strict=True)
        if size is not None and (low is None or low < size) and (high is None or size < high)
    )
    if len(inside) != len(holes):
        return None
    opener, closer = str(whole.value)[0], str(whole.value)[1]
    ends = [whole.args[0], *(hole for _, hole in inside), whole.args[1]]
    last = len(ends) - 2
    return [
        ExpressionNode("sequence", pair, (opener if i == 0 else "(") + (closer if i == last else ")"))
        for i, pair in enumerate(pairwise(ends))
    ]


def _flattened(node: ExpressionNode, kind: str) -> Iterator[ExpressionNode]:
    if node.kind == kind and kind != "difference":
        for arg in node.args:
            yield from _flattened(arg, kind)
    else:
        yield node


def _is_infinite(node: ExpressionNode) -> bool:
    inner = node.args[-1]
    return inner.kind == "constant" and inner.value == "inf"


# Relations

_INEQUALITIES = {"<": (-1, False), "le": (-1, True), ">": (1, False), "ge": (1, True)}


def _relation(node: ExpressionNode) -> Form:
    ops, args = str(node.value).split(), list(node.args)
    if "approx" in ops and not (ops[0] == "approx" and _is_name(args[0])):
        args = args[: ops.index("approx") + 1]  # what is exact comes first
        ops = ops[: ops.index("approx")]
        if not ops:
            return _form(args[0])
    if all(op in ("=", "approx") for op in ops):
        return _equation(args[0], args[-1], chained=len(ops) > 1)
    if ops in (["in"], ["to"]):
        inner = _form(args[1])
        return Form(inner.keys, inner.measure, _name(args[0]), inner.order)
    if ops == ["neq"]:
        return _unequal(args[0], args[1])
    if ops == ["equiv"]:
        keys = tuple(scalar_key(arg) for arg in args)
        return Form((("congruence", keys), *(keys[1:2] if _is_name(args[0]) else ())))
    if all(op in _INEQUALITIES for op in ops):
        return _inequality(ops, args)
    if ops[0] == "=" and _is_name(args[0]) and len(ops) == 2:
        return _relation(ExpressionNode("relation", tuple(args[1:]), ops[1]))
    raise Unreadable(f"a relation {' '.join(ops)}")


def _unequal(left: ExpressionNode, right: ExpressionNode) -> Form:
    """`x \\ne 2`, which is all numbers but 2."""
    keys: list[Key] = [("neq", zero_set_key(_difference(left, right)))]
    if left.kind == "symbol" and not symbols(right):
        rest = ExpressionNode("difference", (ExpressionNode("constant", value="reals"), right))
        keys.append(_set_operation(rest))
    return Form(tuple(keys))


def _equation(left: ExpressionNode, right: ExpressionNode, *, chained: bool) -> Form:
    """`x = 5` is 5 with a name; `2x + z = 1` is an equation up to a factor; `2 + 3 = 5` is 5."""
    keys: list[Key] = []
    name: Key | None = None
    marks: tuple[Key | None, Key | None] = (None, None)
    if _is_name(right) and not _is_name(left) and not symbols(left):
        left, right = right, left
    whole = left.kind in ("add", "neg", "mul", "div") and (symbols(right) or _is_zero(right))
    if (_is_name(left) and not whole) or chained or not (symbols(left) or symbols(right)):
        inner = _form(right)
        keys += inner.keys
        marks = (inner.measure, inner.order)
        name = _name(left) if inner.name is None else inner.name
    try:
        keys.append(("equation", zero_set_key(_numerator(_difference(left, right)))))
    except Unreadable:
        if not keys:
            raise
    return Form(tuple(keys), marks[0], name, marks[1])


def _numerator(node: ExpressionNode) -> ExpressionNode:
    """An expression without letters in denominators: `y - 1/x` as `xy - 1`, which has the same zeros."""
    return _over(node)[0]


def _over(node: ExpressionNode) -> tuple[ExpressionNode, ExpressionNode | None]:
    """(numerator, denominator with letters or None)."""
    if node.kind == "neg":
        above, below = _over(node.args[0])
        return ExpressionNode("neg", (above,)), below
    if node.kind not in ("add", "mul", "div"):
        return node, None
    (a, b), (c, d) = _over(node.args[0]), _over(node.args[1])
    if node.kind == "mul":
        return _times(a, c), _product(b, d)
    if node.kind == "div":
        if not symbols(c):
            return ExpressionNode("div", (_times(a, d), c)), b
        return _times(a, d), _product(b, c)
    return ExpressionNode("add", (_times(a, d), _times(c, b))), _product(b, d)


def _times(node: ExpressionNode, other: ExpressionNode | None) -> ExpressionNode:
    return node if other is None else ExpressionNode("mul", (node, other))


def _product(one: ExpressionNode | None, other: ExpressionNode | None) -> ExpressionNode | None:
    return other if one is None else _times(one, other)


def _is_zero(node: ExpressionNode) -> bool:
    return node.kind == "number" and node.value == 0


def _difference(left: ExpressionNode, right: ExpressionNode) -> ExpressionNode:
    return ExpressionNode("add", (left, ExpressionNode("neg", (right,))))


def _is_name(node: ExpressionNode) -> bool:
    """Whether a node before `=` names the value behind it: `x`, `f(2)`, `(p, q)`, `|AB|`, `a + b`, words."""
    if node.kind == "symbol":
        return True
    if node.kind == "call":
        function = str(node.value)
        if function.startswith(("f ", "mark ")):
            return True
        return function in ("abs", "sin", "cos", "tan", "cot") and all(_is_name(arg) for arg in node.args)
    if node.kind == "sequence":
        return bool(node.args) and all(_is_name(arg) for arg in node.args)
    if node.kind in ("add", "neg", "mul", "div", "ratio"):  # a + b + c = 5, NO/BO = 1/2
        return all(_is_name(arg) for arg in node.args)
    return node.kind == "quantity" and _is_name(node.args[0])


def _name(node: ExpressionNode) -> Key | None:
    """The mark of a name. Functions and words have none, so `f(x) = ...` equals `y = ...`."""
    if node.kind == "symbol" and not str(node.value).startswith("text "):
        return ("name", node.value)
    if node.kind == "sequence":
        names = tuple(_name(arg) for arg in node.args)
        return ("name", names) if all(names) else None
    return None


def _inequality(ops: list[str], args: list[ExpressionNode]) -> Form:
    """Inequalities up to a positive factor; `a < x < b` and `x > a` are intervals too."""
    parts: list[Key] = []
    for op, left, right in zip(ops, args, args[1:], strict=False):
        sign, closed = _INEQUALITIES[op]
        sides = (left, right) if sign > 0 else (right, left)
        if any(_ends_in_infinity(side) for side in sides):
            continue
        parts.append(("at least" if closed else "more", zero_set_key(_difference(*sides), directed=True)))
    keys: list[Key] = [("inequality", tuple(sorted(parts, key=repr)))]
    interval = _interval(ops, args)
    if interval is None:
        return Form(tuple(keys))
    middle, node = interval
    keys.append(_form(node).keys[0])
    return Form(tuple(keys), None, _name(middle))


def _ends_in_infinity(node: ExpressionNode) -> bool:
    return (node.kind == "constant" and node.value == "inf") or (node.kind == "neg" and _is_infinite(node))


_INFINITY = ExpressionNode("constant", value="inf")
_MINUS_INFINITY = ExpressionNode("neg", (_INFINITY,))


def _interval(ops: list[str], args: list[ExpressionNode]) -> tuple[ExpressionNode, ExpressionNode] | None:
    """(unknown, interval) for inequalities that bound one unknown by numbers."""
    unknown = [i for i, arg in enumerate(args) if not _ends_in_infinity(arg) and symbols(arg)]
    if len(unknown) != 1 or len(ops) > 2:
        return None
    place = unknown[0]
    middle = args[place]
    bounds: dict[int, tuple[ExpressionNode, bool]] = {-1: (_MINUS_INFINITY, False), 1: (_INFINITY, False)}
    for i, op in enumerate(ops):
        sign, closed = _INEQUALITIES[op]
        other = args[i + 1] if i == place else args[i]
        side = sign if i == place else -sign  # x < 3 bounds x above
        bounds[-side] = (other, closed and not _ends_in_infinity(other))
    if not (middle.kind == "call" or _is_name(middle)):
        return None
    (low, low_closed), (high, high_closed) = bounds[-1], bounds[1]
    inside = ExpressionNode(
        "sequence", (low, high), ("[" if low_closed else "(") + ("]" if high_closed else ")")
    )
    if middle.kind == "call" and middle.value == "abs":
        inner = middle.args[0]
        if low == _MINUS_INFINITY:
            return inner, ExpressionNode(
                "sequence", (ExpressionNode("neg", (high,)), high), "[]" if high_closed else "()"
            )
        mirrored = ExpressionNode(
            "sequence",
            (
                ExpressionNode("neg", (high,)) if high != _INFINITY else _MINUS_INFINITY,
                ExpressionNode("neg", (low,)),
            ),
            ("[" if high_closed else "(") + ("]" if low_closed else ")"),
        )
        return inner, ExpressionNode("union", (mirrored, inside))
    return middle, inside


def _ranges(items: Sequence[ExpressionNode]) -> Form | None:
    """`x < -1 or x > 2` as a union of intervals."""
    if len(items) < 2 or any(item.kind != "relation" for item in items):
        return None
    parts: list[ExpressionNode] = []
    for item in items:
        ops = str(item.value).split()
        if not all(op in _INEQUALITIES for op in ops):
            return None
        interval = _interval(ops, list(item.args))
        if interval is None:
            return None
        parts.append(interval[1])
    union = parts[0]
    for part in parts[1:]:
        union = ExpressionNode("union", (union, part))
    plain = _list([_form(item) for item in items], ordered=False)
    between = _between(parts)
    return Form((_form(between).keys[0] if between else _set_operation(union), *plain.keys))


def _between(parts: Sequence[ExpressionNode]) -> ExpressionNode | None:
    """`x > 2` and `x < 5` as one interval: as a union they would be all numbers."""
    if len(parts) != 2 or any(part.kind != "sequence" for part in parts):
        return None
    lower, upper = sorted(parts, key=lambda part: part.args[0] == _MINUS_INFINITY)
    if upper.args[0] != _MINUS_INFINITY or lower.args[1] != _INFINITY:
        return None
    low, high = (_size(_form(end).keys[0]) for end in (lower.args[0], upper.args[1]))
    if low is None or high is None or low >= high:
        return None
    return ExpressionNode(
        "sequence", (lower.args[0], upper.args[1]), str(lower.value)[0] + str(upper.value)[1]
    )


# Plus-minus


def _has(node: ExpressionNode, kind: str) -> bool:
    return node.kind == kind or any(_has(arg, kind) for arg in node.args)


def _count(node: ExpressionNode, kind: str) -> int:
    return (node.kind == kind) + sum(_count(arg, kind) for arg in node.args)


def _both_signs(node: ExpressionNode) -> Form:
    """Both values of an expression with a plus-minus sign; with several signs, all combinations of the
    independent ones (`\\pm` goes with `\\mp`)."""
    if node.kind in ("sequence", "matrix") and str(node.value) in (",", "&", ";", "{}", "cases"):
        items = [part for arg in node.args for part in _sign_items(arg)]
        return _list([_form(item) for item in items], ordered=False)
    return _list([_form(item) for item in _sign_items(node)], ordered=False)


def _sign_items(node: ExpressionNode) -> list[ExpressionNode]:
    count = _count(node, "pm")
    if count == 0:
        return [node]
    if count > _MAX_SIGNS:
        raise TooBig("too many plus-minus signs")
    if node.kind == "sequence":  # (±1, ±2): each sign for itself
        choices = [_sign_items(arg) for arg in node.args]
        return [ExpressionNode(node.kind, tuple(choice), node.value) for choice in product(*choices)]
    return [_signed(node, plus) for plus in (True, False)]


def _signed(node: ExpressionNode, plus: bool) -> ExpressionNode:
    args = tuple(_signed(arg, plus) for arg in node.args)
    if node.kind != "pm":
        return ExpressionNode(node.kind, args, node.value)
    add = plus == (node.value == "pm")
    return ExpressionNode("add", (args[0], args[1] if add else ExpressionNode("neg", (args[1],))))
