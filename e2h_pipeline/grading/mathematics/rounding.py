r"""Rounded decimals: whether an answer is the gold answer with numbers correctly rounded.

A decimal counts if it shows at least `SIGNIFICANT` significant digits and is the gold value rounded to
the digits it shows: `0.666667` for 2/3, `2.23607` for the root of 5, but not `0.667`, and not
`0.666666`. Decimals may stand inside tuples, lists, equations and units. Only an answer may be
rounded, and only against a gold answer: voters are compared exactly (`forms`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from e2h_pipeline.grading.mathematics.forms import form_of_tree, same_name
from e2h_pipeline.grading.mathematics.parser import ExpressionNode, parse
from e2h_pipeline.grading.mathematics.sets import real_size
from e2h_pipeline.grading.mathematics.tokens import Unreadable, clean, tokenize
from e2h_pipeline.grading.mathematics.units import measure

SIGNIFICANT = 6
_MAX_ITEMS = 20  # of lists that are matched item by item
_LISTS = (",", "&", "{}", "()", "[]", "(]", "[)", ";")
_UNORDERED = ("&", "{}", ";")


class Written(NamedTuple):
    """An answer as it is written.

    Attributes:
        tree: what was parsed.
        decimals: digits behind the point of each decimal in it that shows enough digits.
    """

    tree: ExpressionNode
    decimals: Mapping[Fraction, int]


def has_long_decimal(text: str) -> bool:
    """Whether a text may hold a decimal with enough digits. Cheap: it is asked of every answer."""
    return "." in text and sum(map(str.isdigit, text)) >= SIGNIFICANT


def written(text: str) -> Written:
    """The tree and the decimals of an answer without its decoration.

    Raises:
        Unreadable: it is no mathematics we know.
    """
    decimals: dict[Fraction, int] = {}
    for token in tokenize(clean(text)):
        if token.kind == "number" and "." in token.text and _significant(token.text) >= SIGNIFICANT:
            places = _places(token.text)
            decimals[token.value] = max(places, decimals.get(token.value, places))
    return Written(parse(text), decimals)


def is_rounded(gold: ExpressionNode, answer: ExpressionNode, decimals: Mapping[Fraction, int]) -> bool:
    """Whether an answer is the gold answer with some of these decimals in the place of exact numbers."""
    tolerance = _tolerance(answer, decimals)
    if tolerance is not None:
        return _is_near(gold, answer, tolerance)
    if gold.kind == "quantity" or answer.kind == "quantity":
        return _same_unit(gold, answer) and is_rounded(_bare(gold), _bare(answer), decimals)
    if _is_equation(gold) or _is_equation(answer):
        return same_name(gold, answer) and is_rounded(
            gold.args[-1] if _is_equation(gold) else gold,
            answer.args[-1] if _is_equation(answer) else answer,
            decimals,
        )
    if _is_list(gold) and _is_list(answer):
        return _items_match(gold, answer, decimals)
    alike = (gold.kind, gold.value, len(gold.args)) == (answer.kind, answer.value, len(answer.args))
    if alike and gold.kind in ("union", "row", "matrix", "relation"):
        return all(is_rounded(a, b, decimals) for a, b in zip(gold.args, answer.args, strict=True))
    return _is_same(gold, answer)


def _items_match(gold: ExpressionNode, answer: ExpressionNode, decimals: Mapping[Fraction, int]) -> bool:
    golds, answers = list(gold.args), list(answer.args)
    if len(golds) != len(answers) or len(golds) > _MAX_ITEMS:
        return False
    brackets = {str(gold.value), str(answer.value)}
    if all(is_rounded(a, b, decimals) for a, b in zip(golds, answers, strict=True)):
        return len(brackets) == 1 or bool(brackets & {",", "&", ";"})
    if (len(golds) > 2 and not brackets & set(_UNORDERED)) or not brackets <= {",", *_UNORDERED}:
        return False
    for one in golds:
        place = next((i for i, other in enumerate(answers) if is_rounded(one, other, decimals)), None)
        if place is None:
            return False
        del answers[place]
    return True


def _is_near(gold: ExpressionNode, answer: ExpressionNode, tolerance: Fraction) -> bool:
    """Whether the answer is the gold value rounded; a tie may be rounded up or down."""
    right, given = _real(gold), _real(answer)
    return right is not None and given is not None and abs(right - given) <= tolerance


def _tolerance(node: ExpressionNode, decimals: Mapping[Fraction, int]) -> Fraction | None:
    """Half of the last digit shown, for a decimal, its negative and one times a power of ten."""
    if node.kind == "number" and isinstance(node.value, Fraction):
        places = decimals.get(node.value)
        return None if places is None else Fraction(1, 2) / Fraction(10) ** places
    if node.kind == "neg":
        return _tolerance(node.args[0], decimals)
    if node.kind == "mul" and _is_power_of_ten(node.args[1]):
        inner, scale = _tolerance(node.args[0], decimals), _real(node.args[1])
        return None if inner is None or scale is None else inner * scale
    return None


def _is_power_of_ten(node: ExpressionNode) -> bool:
    return node.kind == "pow" and node.args[0] == ExpressionNode("number", value=Fraction(10))


def _real(node: ExpressionNode) -> Fraction | None:
    try:
        size = real_size(form_of_tree(node).keys[0])
    except Unreadable:
        return None
    return size if isinstance(size, Fraction) else None


def _is_same(gold: ExpressionNode, answer: ExpressionNode) -> bool:
    try:
        return form_of_tree(gold).equals(form_of_tree(answer))
    except Unreadable:
        return False


def _same_unit(gold: ExpressionNode, answer: ExpressionNode) -> bool:
    units = [measure(str(node.value)) if node.kind == "quantity" else None for node in (gold, answer)]
    return None in units or units[0] == units[1]


def _bare(node: ExpressionNode) -> ExpressionNode:
    return node.args[0] if node.kind == "quantity" else node


def _is_equation(node: ExpressionNode) -> bool:
    return node.kind == "relation" and str(node.value).split()[0] in ("=", "in", "approx")


def _is_list(node: ExpressionNode) -> bool:
    return node.kind == "sequence" and node.value in _LISTS


def _significant(text: str) -> int:
    mantissa = re.split("[eE]", text)[0]
    return len(re.sub(r"\D", "", mantissa).lstrip("0"))


def _places(text: str) -> int:
    mantissa, _, exponent = text.lower().replace(",", "").partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)
