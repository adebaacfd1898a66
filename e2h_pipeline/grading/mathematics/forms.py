r"""Canonical forms of answers: keys to compare by hash, and marks that forbid a match.

An answer may be read in more than one way: `x = 5` as an equation or as 5, `10\%` as 10 or as 1/10,
`0 < x < 1` as inequalities or as the interval, `1:2` as a ratio or as 1/2. A form holds a key per
reading, the most literal first. Two answers are equal if they share a key and no mark of one
contradicts the same mark of the other:

- measure: a unit, currency, per cent or angle. Where both answers have one, the measured
  values decide (8 feet is 96 inches and not 8 inches); where one has none, the bare number does.
- name: the left side of an equation, as `x` in `x = 5`. `x = 5` equals `5`, not `y = 5`; nor is
  `\\sin x = 1/2` the same as `\\cos x = 1/2`. Where both are the same equation, names do not count.
- order: of a bare list that is not in ascending order. `3, 1, 2` equals `1, 2, 3` (written in ascending
  order, a list says nothing by its order) but not `2, 1, 3`. Lists with `and` or `or`, with braces or
  with roots of both signs have no order; pairs and longer tuples in brackets are compared in order.

- signs: values of a function of several letters at points with more mixtures of signs; see `values`.

Within one problem the marks are settled once (`MathGrader.classes`), which makes equality transitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, product

from e2h_pipeline.grading.mathematics.parser import CONSTANTS, ExpressionNode, parse
from e2h_pipeline.grading.mathematics.sets import (
    EVERYTHING,
    ExactSet,
    RealSet,
    combined,
    everything,
    finite,
    interval,
    real_size,
    set_keys,
)
from e2h_pipeline.grading.mathematics.tokens import TooBig, Unreadable, clean
from e2h_pipeline.grading.mathematics.units import measure
from e2h_pipeline.grading.mathematics.values import (
    Key,
    evaluate,
    mixed_signs_key,
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
        measure, name, order, signs: the marks, None where the answer has none.
        certain: False where a limit was met: the keys say what is written, not what it comes to.
        opaque: it holds a sum, integral or limit, which we compare as it is written.
    """

    keys: tuple[Key, ...]
    measure: Key | None = None
    name: Key | None = None
    order: Key | None = None
    signs: Key | None = None
    certain: bool = True
    opaque: bool = False

    def equals(self, other: Form, order_free: bool = False) -> bool:
        """Symmetric; see the module.

        Args:
            order_free: whether lists may stand in any order, whatever the answers say.
        """
        if self.measure is not None and other.measure is not None:
            same = self.measure == other.measure
        else:
            same = not set(self.keys).isdisjoint(other.keys)
        if (
            not same
            or not _agree(self.signs, other.signs)
            or not (self.named_like(other) or self.related_like(other))
        ):
            return False
        return order_free or _agree(self.order, other.order)

    def ordered_like(self, other: Form) -> bool:
        """Whether two answers, if both are lists in some order, have the same order."""
        both = (set(self.keys), set(other.keys))
        if any(not any(key[0] == "tuple" for key in keys) for keys in both):
            return True
        return not both[0].isdisjoint(key for key in both[1] if key[0] != "list")

    def named_like(self, other: Form) -> bool:
        """Whether the names, if both have one, may name the same thing."""
        return self.name is None or other.name is None or _same_label(self.name, other.name)

    def related_like(self, other: Form) -> bool:
        """Whether both are the same equation or inequality, whatever stands on its left side."""
        shared = set(self.keys).intersection(other.keys)
        return any(key[0] in _RELATION_KEYS for key in shared)


_RELATION_KEYS = ("equation", "equations", "inequality", "neq")


def _agree(one: Key | None, other: Key | None) -> bool:
    return one is None or other is None or one == other


def _same_label(one: Key, other: Key) -> bool:
    """Whether two left sides may stand for the same thing: `y` and `f(x)`, `A` and `Area`."""
    if one == other:
        return True
    kinds = (one[0], other[0])
    if kinds == ("words", "words"):
        return not set(one[1:]).isdisjoint(other[1:])
    if "words" in kinds or kinds.count("choice") == 1:
        return True
    if kinds == ("function", "function"):
        return bool(one[1] == other[1])
    if kinds in (("function", "name"), ("name", "function")):
        function, name = (one, other) if one[0] == "function" else (other, one)
        return name[1] not in function[2:]
    if kinds == ("names", "names") and len(one[1]) == len(other[1]):
        return all(a and b and _same_label(a, b) for a, b in zip(one[1], other[1], strict=True))
    return False


def form(text: str) -> Form:
    """The form of an answer.

    Raises:
        Unreadable: the text is no mathematics we know; TooBig: over a limit.
    """
    text = conclusion_of(text)
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


def conclusion_of(text: str) -> str:
    """What stands behind the last arrow."""
    return _IMPLIES.split(text)[-1]


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
        if words and _WORDS.fullmatch(words):
            return Form((*own, _words_key(words)))
        return Form((*own, *_keys_or_none(words)), name=("choice", letter))
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
    phrase = _phrase(unboxed)
    if phrase is not None:
        return phrase
    if _DAY.fullmatch(unboxed) is not None:
        return Form((_words_key(unboxed), ("value", *number_key(Fraction(unboxed.split()[1])))))
    if len(unboxed) > 1 and _WORDS.fullmatch(unboxed) and not _joins(unboxed) and unboxed not in CONSTANTS:
        keys: tuple[Key, ...] = (_words_key(unboxed),)
        if unboxed.lower() in _NOTHING:
            keys += (("constant", "empty"),)
        if unboxed.lower() in _NUMBER_WORDS:
            keys += (("value", *number_key(Fraction(_NUMBER_WORDS[unboxed.lower()]))),)
        if len(unboxed) <= 4:  # xy, AB
            keys += _keys_or_none(unboxed)
        return Form(keys)
    return None


_ALL_REALS = re.compile(
    r"(?:all |every |any |the )?real(?:s| numbers?)(?: x| for x)?"
    r"(?:,? (?:except|but|other than|excluding)(?: for)? (?:x ?= ?)?(?P<holes>.+))?",
    re.IGNORECASE,
)
_TO = re.compile(r"(\d{1,9}) (?:to|is to) (\d{1,9})")
_YES = re.compile(r"(yes|no|true|false)[,.;:!]\s.*", re.IGNORECASE | re.DOTALL)
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {
    **{word: i for i, word in enumerate(f"{_ONES} eighteen nineteen".split())},
    **{word: 10 * i for i, word in enumerate(_TENS.split(), 2)},
    "hundred": 100,
    "one hundred": 100,
    "thousand": 1000,
}


def _phrase(text: str) -> Form | None:
    """Words that say a set, a ratio, or yes or no."""
    if " " not in text and "real" not in text:
        return None
    reals = _ALL_REALS.fullmatch(text.replace("$", ""))
    if reals is not None:
        if not reals["holes"]:
            return Form((("constant", "reals"),))
        try:
            return _set_operation(ExpressionNode("difference", (_REALS, _holes(parse(reals["holes"])))))
        except Unreadable:
            return None
    ratio = _TO.fullmatch(text)
    if ratio is not None:
        return _form(parse(f"{ratio[1]}:{ratio[2]}"))
    said = _YES.fullmatch(text)
    return None if said is None else Form((_words_key(said[1]),))


def _holes(node: ExpressionNode) -> ExpressionNode:
    """What is taken out, as a set."""
    listed = node.kind == "sequence" and node.value in (",", "&")
    return ExpressionNode("sequence", node.args, "{}") if listed else node


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


def form_of_tree(node: ExpressionNode) -> Form:
    """The form of a parsed answer or of a part of one; errors as of `form`."""
    return _form(node)


def same_name(one: ExpressionNode, other: ExpressionNode) -> bool:
    """Whether the left sides of two equations, where both have one, may name the same thing."""
    names = [_name(node.args[0]) if node.kind == "relation" else None for node in (one, other)]
    return names[0] is None or names[1] is None or _same_label(names[0], names[1])


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
        return _set_operation(node)
    if node.kind == "add" and node.args[1].kind == "neg" and _is_set(node.args[0]):  # R - {2}
        return _set_operation(ExpressionNode("difference", (node.args[0], node.args[1].args[0])))
    if node.kind == "matrix" and node.value == "cases":
        rows = [_row_item(row) for row in node.args]
        return _assignments(rows) or _list([_form(row) for row in rows], ordered=False)
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
    return Form((key,), signs=mixed_signs_key(node))


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
        return Form((("based", radix, *number_key(Fraction(int(whole + part, radix), radix ** len(part)))),))
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
        kept = tuple(item for item in node.args if not _is_range(item))
        if kept and len(kept) < len(node.args):  # k is a whole number
            return _form(kept[0] if len(kept) == 1 else ExpressionNode("sequence", kept, brackets))
        found = _ranges(node.args) or _assignments(node.args) or _alternatives(node.args, brackets)
        if found is not None:
            return found
        return _list([_form(item) for item in _shared_name(node.args)], ordered=brackets == ",")
    items = [_form(item) for item in node.args]
    if brackets == "{}":
        return _list(items, ordered=False)
    keys = tuple(item.keys[0] for item in items)
    own: Key = ("tuple", brackets, keys)
    readings: list[Key] = [own]
    if brackets == "()":
        readings.append(("tuple", "", keys))
    rows = [item.args for item in node.args if item.kind == "sequence" and item.value == "[]"]
    if brackets == "[]" and len(rows) == len(node.args) and len({len(row) for row in rows}) == 1:
        matrix = ExpressionNode("matrix", tuple(ExpressionNode("row", row) for row in rows), "matrix")
        return Form((own, scalar_key(matrix)))
    name = tuple(item.name for item in items)
    measures = tuple(item.measure for item in items)
    if len(items) == 2 and brackets == "()" and keys == _WHOLE_LINE:
        readings.append(("constant", "reals"))
    return Form(
        tuple(readings),
        ("measures", measures) if all(m is not None for m in measures) else None,
        name if all(n is not None for n in name) else None,
    )


def _is_range(node: ExpressionNode) -> bool:
    r"""`k \in \mathbb{Z}` behind an answer."""
    sides = node.args if node.kind == "relation" and node.value == "in" else ()
    return bool(sides) and sides[0].kind == "symbol" and sides[1].value in ("integers", "naturals")


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
    equations = [next((key for key in item.keys if key[0] == "equation"), None) for item in items]
    if all(equations):
        keys.append(("equations", tuple(sorted(equations, key=repr))))
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
    values = [real_size(item.keys[0]) for item in items]
    if any(value is None for value in values):
        return True
    numbers = [value for value in values if value is not None]
    return all(a <= b for a, b in pairwise(numbers))


def _as_tuple(rows: tuple[Key, ...]) -> list[Key]:
    """A row or column vector as a tuple."""
    if len(rows) == 1:
        cells = rows[0]
    elif all(len(row) == 1 for row in rows):
        cells = tuple(row[0] for row in rows)
    else:
        return []
    return [("tuple", "", tuple(("value", *cell) for cell in cells))]


def _set_operation(node: ExpressionNode) -> Form:
    """Sets of numbers as their pieces from left to right; other sets as they are written."""
    found = _exact_set(node)
    if found is None:
        parts = [part for arg in node.args for part in _flattened(arg, node.kind)]
        keys = [_form(part).keys[0] for part in parts]
        return Form(((node.kind, tuple(keys if node.kind == "difference" else sorted(set(keys), key=repr))),))
    return _pieces_form(found)


def _pieces_form(found: ExactSet) -> Form:
    pieces = sorted(set_keys(found), key=repr)
    if not pieces:
        return Form((("constant", "empty"),))
    if isinstance(found, RealSet) and found.spans == (EVERYTHING,):
        return Form((("constant", "reals"),))
    if len(pieces) == 1:
        return Form((pieces[0],))
    if any(piece[0] == "tuple" and piece[1] for piece in pieces) and isinstance(found, RealSet):
        return Form((("union", tuple(pieces)),))
    return Form((("list", tuple(pieces)),))


_SETS = ("union", "intersection", "difference")


def _is_set(node: ExpressionNode) -> bool:
    """Whether it can only be a set: the reals, braces, an interval with a square bracket."""
    if node.kind == "constant":
        return node.value in ("reals", "empty")
    return node.kind in _SETS or (node.kind == "sequence" and node.value in ("{}", "[)", "(]"))


def _is_interval(node: ExpressionNode) -> bool:
    return node.kind == "sequence" and len(node.args) == 2 and str(node.value) in ("()", "[]", "(]", "[)")


def _exact_set(node: ExpressionNode) -> ExactSet | None:
    """The set that a node is, where its ends are real numbers and its members have keys."""
    if node.kind in _SETS:
        one, other = _exact_set(node.args[0]), _exact_set(node.args[1])
        return None if one is None or other is None else combined(str(node.value or node.kind), one, other)
    if node.kind == "constant" and node.value in ("reals", "empty"):
        return everything() if node.value == "reals" else finite([])
    if node.kind == "relation":
        return _exact_relation(node)
    if node.kind != "sequence":
        return _exact_members([node]) if node.kind != "constant" else None
    if node.value == "{}" or not node.value:
        return _exact_members(node.args)
    if _is_interval(node):
        return interval(str(node.value), *(_form(end).keys[0] for end in node.args))
    return None


def _exact_members(nodes: Sequence[ExpressionNode]) -> ExactSet | None:
    """The set of these; of both values of a plus-minus sign."""
    keys: list[Key] = []
    for node in nodes:
        key = _form(node).keys[0]
        keys += key[1] if key[0] == "list" else [key]
    return finite(keys)


def _exact_relation(node: ExpressionNode) -> ExactSet | None:
    """The numbers that fulfil an inequality of one unknown, or `x \\ne 2`."""
    ops, args = str(node.value).split(), list(node.args)
    if ops == ["in"]:
        return _exact_set(args[1])
    if ops == ["neq"]:
        return _exact_set(ExpressionNode("difference", (_REALS, args[1]))) if _is_name(args[0]) else None
    if not all(op in _INEQUALITIES for op in ops):
        return None
    found = _interval(ops, args)
    return None if found is None else _exact_set(found[1])


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
        keys += _set_operation(ExpressionNode("difference", (_REALS, right))).keys
    return Form(tuple(keys), None, _name(left))


def _equation(left: ExpressionNode, right: ExpressionNode, *, chained: bool) -> Form:
    """`x = 5` is 5 with a name; `2x + z = 1` is an equation up to a factor; `2 + 3 = 5` is 5."""
    keys: list[Key] = []
    name: Key | None = None
    marks: tuple[Key | None, Key | None] = (None, None)
    if _is_name(right) and not _is_name(left) and not symbols(left):
        left, right = right, left
    if _is_tuple(left) and _is_tuple(right) and len(left.args) == len(right.args):
        found = _assignments(
            [ExpressionNode("relation", pair, "=") for pair in zip(left.args, right.args, strict=True)]
        )
        if found is not None:
            return found
    whole = left.kind in ("add", "neg", "mul", "div") and (symbols(right) or _is_zero(right))
    whole = whole and not _is_segment(left)
    if (_is_name(left) and not whole) or chained or not (symbols(left) or symbols(right)):
        inner = _form(right)
        keys += inner.keys
        marks = (inner.measure, inner.order)
        name = _name(left) if inner.name is None else inner.name
    try:
        equation = zero_set_key(_numerator(_difference(left, right)))
        if equation != ("always",) or not keys:
            keys.append(("equation", equation))
    except Unreadable:
        if not keys:
            raise
    return Form(tuple(keys), marks[0], name, marks[1])


def _is_tuple(node: ExpressionNode) -> bool:
    return node.kind == "sequence" and node.value in ("()", ",")


def _is_segment(node: ExpressionNode) -> bool:
    """Capital letters side by side: a segment, an angle or a figure, not a product."""
    if node.kind == "symbol":
        return str(node.value).isupper()
    return node.kind == "mul" and all(_is_segment(arg) for arg in node.args)


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
        return function in _NAMING and all(_is_name(arg) for arg in node.args)
    if node.kind == "sequence":
        return bool(node.args) and all(_is_name(arg) for arg in node.args)
    if node.kind in ("add", "neg", "mul", "div", "ratio"):  # a + b + c = 5, NO/BO = 1/2
        return all(_is_name(arg) for arg in node.args)
    return node.kind == "quantity" and _is_name(node.args[0])


_NAMING = ("abs", "sin", "cos", "tan", "cot", "sec", "csc", "ln", "log")


def _name(node: ExpressionNode) -> Key | None:
    """The mark of a left side. A function of letters may be named `y`, so it has its own kind."""
    node = _unmarked(node)
    if node.kind == "symbol":
        text = str(node.value)
        return _words_key(text.removeprefix("text ")) if text.startswith("text ") else ("name", text)
    if node.kind == "sequence":
        names = tuple(_name(arg) for arg in node.args)
        return ("names", tuple(sorted(names, key=repr))) if all(names) else None
    of_letters = all(arg.kind == "symbol" for arg in node.args)
    if node.kind == "call" and str(node.value).startswith("f ") and of_letters:
        return ("function", node.value, *(arg.value for arg in node.args))
    if not symbols(node):
        return None
    try:
        return ("left", scalar_key(node))
    except Unreadable:
        return None


def _unmarked(node: ExpressionNode) -> ExpressionNode:
    r"""A figure without what says its kind: `\\overline{AB}`, `|AB|` and `AB`, `m\\angle A` and `A`."""
    if node.kind == "quantity":
        return _unmarked(node.args[0])
    if (
        node.kind == "mul"
        and node.args[0] == ExpressionNode("symbol", value="m")
        and _is_marked(node.args[1])
    ):
        return _unmarked(node.args[1])
    args = tuple(_unmarked(arg) for arg in node.args)
    if _is_marked(node) and _is_segment(args[0]):
        return args[0]
    return ExpressionNode(node.kind, args, node.value)


def _is_marked(node: ExpressionNode) -> bool:
    return node.kind == "call" and (str(node.value).startswith("mark ") or node.value == "abs")


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


_REALS = ExpressionNode("constant", value="reals")
_INFINITY = ExpressionNode("constant", value="inf")
_MINUS_INFINITY = ExpressionNode("neg", (_INFINITY,))


def _interval(ops: list[str], args: list[ExpressionNode]) -> tuple[ExpressionNode, ExpressionNode] | None:
    """(unknown, interval) for inequalities that bound one unknown by numbers."""
    args = _solved(ops, args)
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
    line = None if middle.kind == "symbol" else _linear(middle)
    if not (line or middle.kind == "call" or _is_name(middle)):
        return None
    (low, low_closed), (high, high_closed) = bounds[-1], bounds[1]
    inside = ExpressionNode(
        "sequence", (low, high), ("[" if low_closed else "(") + ("]" if high_closed else ")")
    )
    if line is not None:
        letter, slope, _ = line
        ends = tuple(end if _ends_in_infinity(end) else _crossing(line, end) for end in inside.args)
        if slope > 0:
            return letter, ExpressionNode("sequence", ends, inside.value)
        ends = tuple(_opposite(end) if _ends_in_infinity(end) else end for end in reversed(ends))
        turned = str(inside.value)[::-1].translate(str.maketrans("()[]", ")(]["))
        return letter, ExpressionNode("sequence", ends, turned)
    if middle.kind == "call" and middle.value == "abs":
        inner = middle.args[0]
        if _linear(inner) is not None and inner.kind != "symbol":
            return _absolute_interval(inner, low, high, low_closed, high_closed)
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


_Line = tuple[ExpressionNode, Fraction, Fraction]
"""A letter, and slope and constant of a linear expression in it."""


def _linear(node: ExpressionNode) -> _Line | None:
    """The line that an expression in one letter is; None for others."""
    letters = symbols(node)
    if len(letters) != 1 or not _is_rational(node):
        return None
    letter = ExpressionNode("symbol", value=next(iter(letters)))
    try:
        (x, y), (u, v), (r, s) = ((evaluate(letter, point), evaluate(node, point)) for point in range(3))
    except Unreadable:
        return None
    if not all(isinstance(value, Fraction) for value in (x, y, u, v, r, s)) or y == v:
        return None
    slope = (v - y) / (u - x)
    return (letter, slope, y - slope * x) if s - y == slope * (r - x) else None


def _is_rational(node: ExpressionNode) -> bool:
    return node.kind in ("number", "symbol", "add", "neg", "mul", "div") and all(map(_is_rational, node.args))


def _crossing(line: _Line, height: ExpressionNode) -> ExpressionNode:
    """Where a line has a height."""
    _, slope, constant = line
    above = ExpressionNode("add", (height, ExpressionNode("number", value=-constant)))
    return ExpressionNode("div", (above, ExpressionNode("number", value=slope)))


def _opposite(infinite: ExpressionNode) -> ExpressionNode:
    return _INFINITY if infinite == _MINUS_INFINITY else _MINUS_INFINITY


def _absolute_interval(
    inner: ExpressionNode, low: ExpressionNode, high: ExpressionNode, low_closed: bool, high_closed: bool
) -> tuple[ExpressionNode, ExpressionNode] | None:
    """Where the size of a linear expression is below a bound, or above one: `|x-2| < 3` as `(-1,5)`."""
    minus_high, minus_low = ExpressionNode("neg", (high,)), ExpressionNode("neg", (low,))
    if low == _MINUS_INFINITY:
        op = "le" if high_closed else "<"
        return _interval([op, op], [minus_high, inner, high])
    if high != _INFINITY:
        return None
    op, back = ("ge", "le") if low_closed else (">", "<")
    above, below = _interval([op], [inner, low]), _interval([back], [inner, minus_low])
    if above is None or below is None:
        return None
    return above[0], ExpressionNode("union", (below[1], above[1]))


def _solved(ops: list[str], args: list[ExpressionNode]) -> list[ExpressionNode]:
    """`2x < x + 6` as `x < 6`; what is not linear in one letter on both sides as it is."""
    if len(ops) != 1 or not all(symbols(arg) for arg in args):
        return args
    line = _linear(_difference(*args))
    if line is None:
        return args
    bound = _crossing(line, ExpressionNode("number", value=Fraction(0)))
    return [line[0], bound] if line[1] > 0 else [bound, line[0]]


def _ranges(items: Sequence[ExpressionNode]) -> Form | None:
    """`x < -1 or x > 2` as a union of intervals; `x > 2 and x < 5` as what both allow, because their
    union would be all numbers; `x > 0, x \\ne 1` without the 1."""
    if len(items) < 2 or any(item.kind != "relation" or len(str(item.value).split()) > 2 for item in items):
        return None
    if len({_name(item.args[0]) for item in items if _is_name(item.args[0])}) > 1:
        return None
    holes = [item for item in items if item.value == "neq"]
    found = [_exact_relation(item) for item in (*(item for item in items if item not in holes), *holes)]
    if any(part is None or not isinstance(part, RealSet) for part in found):
        return None
    total = found[0]
    for part in found[1:]:
        united = combined("union", total, part) if total and part else None
        whole = isinstance(united, RealSet) and united.spans == (EVERYTHING,)
        total = combined("intersection", total, part) if whole and total and part else united
    if total is None:
        return None
    plain = _list([_form(item) for item in items], ordered=False)
    return Form((*_pieces_form(total).keys, *plain.keys), None, plain.name)


# Assignments

_ROOTS = frozenset(("x", "y", "z", "r", "t", "u", "v", "w", "\\lambda", "\\theta"))


def _assignments(items: Sequence[ExpressionNode]) -> Form | None:
    """`x = 3, y = 2` as a value for each name, in any order; where names come again, as the solutions of
    a system: `p=5, q=2` and `p=7, q=2`. None where items are not equations of two or more names."""
    groups: list[dict[Key, Form]] = [{}]
    for item, begins in _flat_items(items):
        if item.kind != "relation" or item.value != "=" or not _names_a_value(item.args[0]):
            return None
        name = _name(item.args[0])
        if name is None or name[0] not in ("name", "function"):
            return None
        if begins or name in groups[-1]:
            groups.append({})
        groups[-1][name] = _form(item.args[1])
    groups = [group for group in groups if group]
    names = sorted(groups[0], key=repr)
    if len(names) < 2 or any(group.keys() != groups[0].keys() for group in groups):
        return None
    label: Key = ("names", tuple(names))
    if len(groups) > 1:
        rows = [("tuple", "()", tuple(group[name].keys[0] for name in names)) for group in groups]
        return Form(
            (("list", tuple(sorted(set(rows), key=repr))),) if len(set(rows)) > 1 else (rows[0],), None, label
        )
    return _one_assignment(groups[0], names, label)


def _one_assignment(group: dict[Key, Form], names: list[Key], label: Key) -> Form:
    values = tuple(group[name].keys[0] for name in names)
    measures = tuple(group[name].measure for name in names)
    keys: list[Key] = [("tuple", "()", values), ("tuple", "", values)]
    letters = "".join(str(name[1]) for name in names)
    if not (len(letters) == len(names) and ord(letters[-1]) - ord(letters[0]) == len(letters) - 1):
        written = tuple(found.keys[0] for found in group.values())  # m = 2, b = 3 as (2, 3)
        keys += [("tuple", "", written), ("tuple", "()", written)]
    bases = {str(name[1]).partition("_")[0] for name in names}
    if len(bases) == 1 and bases <= _ROOTS:  # x_1 = 2, x_2 = 3: which is the first root is a matter of taste
        return Form((("list", tuple(sorted(set(values), key=repr))),), None, ("name", bases.pop()))
    mark = ("measures", measures) if all(measure is not None for measure in measures) else None
    return Form(tuple(keys), mark, label)


def _names_a_value(node: ExpressionNode) -> bool:
    return node.kind == "symbol" or (node.kind == "call" and _is_name(node))


def _flat_items(items: Sequence[ExpressionNode]) -> Iterator[tuple[ExpressionNode, bool]]:
    """(item, whether a new group begins with it): groups are `;`, brackets or rows of their own."""
    for item in items:
        if item.kind == "sequence" and item.value in ("()", ",", "&", "{}"):
            for i, part in enumerate(item.args):
                yield part, i == 0
        else:
            yield item, False


def _alternatives(items: Sequence[ExpressionNode], brackets: str) -> Form | None:
    """Intervals with `or` or `and` between them as their union."""
    if brackets != "&" or not all(_is_interval(item) for item in items):
        return None
    if not any(_is_set(item) or any(_ends_in_infinity(end) for end in item.args) for item in items):
        return None
    total = _exact_set(items[0])
    for item in items[1:]:
        part = _exact_set(item)
        total = combined("union", total, part) if total and part else None
    return None if total is None or not isinstance(total, RealSet) else _pieces_form(total)


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
