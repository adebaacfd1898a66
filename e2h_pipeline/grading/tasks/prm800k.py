r"""The sympy step of OpenAI's grader on one pair of elements; a task of `grading.worker`.

Upstream (prm800k/grading/grader.py, `are_equal_under_sympy`) hands `(gold)-(answer)` to sympy's
`parse_expr`, which evaluates it as Python. Here the same transformations make the same Python, but
nothing is evaluated before `_harmless` has looked at characters and syntax tree: numbers, symbols,
operators and calls of `_FUNCTIONS` only. The names of upstream's other functions stand for objects
that can do nothing, so an expression that merely mentions one fails as it fails upstream.
"""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from typing import Any

import sympy
from sympy.parsing import sympy_parser

WARM_UP = ("2*x/4", "x*0.5")

_TRANSFORMATIONS = (
    *sympy_parser.standard_transformations,
    sympy_parser.implicit_multiplication_application,
)
_CONSTANTS = ("I", "nan", "oo", "pi", "zoo")
_FUNCTIONS = (
    *(
        "csc",
        "factorial",
        "factorial2",
        "ff",
        "frac",
        "gff",
        "hn1",
        "hn2",
        "im",
        "jn",
        "li",
        "ln",
        "re",
        "rf",
    ),
    *("sqrt", "yn", "Float", "Function", "Integer", "Number", "Rational", "Symbol"),
)
"""Functions whose names have at most two different letters, as upstream allows no more, and those that the
transformations write."""

_OF_TEXT = {
    "Symbol": re.compile(r"\w+"),
    "Function": re.compile(r"\w+"),
    "Float": re.compile(r"[0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9_]+)?"),
    "Number": re.compile(r"\w+"),
}
"""Functions that may be given text, and what text. Sympy would evaluate the text given to most other functions."""

_CHARACTERS = re.compile(r"[\w\s+\-*/%@().,!<>=&|~\[\]]*")
_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Tuple, ast.List, ast.Subscript),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Load, ast.Constant, ast.Name, ast.Call),
)


def compare(gold: str, answer: str) -> str:
    """equal, different, or undecided where upstream would have evaluated what is refused here, or
    where memory ran out."""
    text = f"({gold})-({answer})".replace("^", "**")
    try:
        code = sympy_parser.stringify_expr(text, {}, _upstream_names(), _TRANSFORMATIONS)
        tree = ast.parse(code.lstrip(" \t"), mode="eval")
        compiled = compile(tree, "<answer>", "eval")
    except Exception:  # noqa: BLE001 - not an expression: upstream says different to whatever is raised
        return "different"
    if not _harmless(text, tree):
        return "undecided"
    try:
        difference = sympy_parser.eval_expr(compiled, {}, _safe_names())
        return "equal" if sympy.simplify(difference) == 0 else "different"
    except MemoryError:
        return "undecided"
    except Exception:  # noqa: BLE001 - as above
        return "different"


def _harmless(text: str, tree: ast.Expression) -> bool:
    """Whether an expression holds only what `_CHARACTERS`, `_NODES` and `_FUNCTIONS` allow."""
    if not _CHARACTERS.fullmatch(text):
        return False
    of_text: set[ast.expr] = set()  # constants that a call of `_OF_TEXT` has vouched for
    for node in ast.walk(tree):  # parents come before their children
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Call):
            if node.keywords or not _callable(node.func):
                return False
            if _text_argument(node):
                of_text.add(node.args[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node not in of_text:
            return False
    return True


def _callable(function: ast.expr) -> bool:
    """An allowed name, or `Function('f')`."""
    if isinstance(function, ast.Call):
        return isinstance(function.func, ast.Name) and function.func.id == "Function"
    return isinstance(function, ast.Name) and function.id in _FUNCTIONS


def _text_argument(call: ast.Call) -> bool:
    """Whether a call has one argument, which is text that its function may be given."""
    if not isinstance(call.func, ast.Name) or call.func.id not in _OF_TEXT or len(call.args) != 1:
        return False
    argument = call.args[0]
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        return False
    return _OF_TEXT[call.func.id].fullmatch(argument.value) is not None


def _number(text: str) -> Any:
    """`Number(text)`, which upstream calls on the digits of names such as x2, without its `sympify`."""
    if not re.fullmatch("0+|[1-9][0-9]*", text):
        raise ValueError("no number")  # such as superscript digits: raised upstream too
    return sympy.Integer(text)


@cache
def _upstream_names() -> dict[str, Any]:
    """The names that `parse_expr` knows: sympy's, the functions built into Python, `max` and `min`."""
    function = type(len)
    names = {name: value for name, value in vars(builtins).items() if isinstance(value, function)}
    sympy_names = {name: getattr(sympy, name) for name in sympy.__all__}
    return {**sympy_names, **names, "max": sympy.Max, "min": sympy.Min}


@cache
def _safe_names() -> dict[str, Any]:
    allowed = {name: getattr(sympy, name) for name in (*_CONSTANTS, *_FUNCTIONS)}
    inert = dict.fromkeys(_upstream_names(), object())
    return {**inert, **allowed, "Number": _number, "__builtins__": {}}
