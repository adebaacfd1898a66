r"""The two normal forms of OpenAI's grader, rule by rule, with their quirks.

`hendrycks_form` is math_normalize.py, `loose_form` is `_normalize` of grader.py in
github.com/openai/prm800k at 00811d6 (prm800k/grading, MIT licence); the first goes back to the MATH
release (Hendrycks et al. 2021). The paper's code has the same two (Edward-Sun/easy-to-hard at 49c104a,
math_utils). What these rules get wrong is kept on purpose: "8 feet" and "8 inches" are both 8.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

MAX_LATEX_CHARACTERS = 10_000  # latex to text takes 0.01 ms a character

_TEXT_COMMAND = re.compile(r"^\\text\{(?P<text>.+?)\}$")
_HENDRYCKS_DELETED = ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$")
_ONE_CHARACTER_ROOT = re.compile(r"\\sqrt([^{])", re.DOTALL)
_INTEGER_RATIO = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")

_UNITS = (
    *("degree", "cm", "centimeter", "meter", "mile", "second", "minute", "hour"),
    *("day", "week", "month", "year", "foot", "feet", "inch", "yard"),
)
_UNIT_PATTERNS = [(unit, re.compile(rf"{unit}(es)?(s)? *(\^[0-9]+)?")) for unit in _UNITS]
_LOOSE_REPLACED = (
    *(("\\%", "%"), ("\\$", "$"), ("$", ""), ("%", ""), (" or ", " , "), (" and ", " , ")),
    *(("million", "*10^6"), ("billion", "*10^9"), ("trillion", "*10^12")),
)
_SIGNS = (("√", "sqrt"), ("π", "pi"), ("∞", "inf"), ("∪", "U"), ("·", "*"), ("×", "*"))
_DEGREE_SIGN = re.compile(r"\^ *\\circ")
_THIN_COMMA = re.compile(r",\\! *")
_MINUS = re.compile("- *")
_MIXED_NUMBER = re.compile("([0-9]) +([0-9])")
_THOUSANDS_COMMA = re.compile(r"(\d)(,)(\d\d\d)($|\D)")


def hendrycks_form(answer: str) -> str:
    """The answer after `normalize_answer`; as it was, less an outer text command, where that raises."""
    text = answer.strip()
    command = _TEXT_COMMAND.search(text)
    if command is not None:
        text = command["text"].strip()
    form = _hendrycks_strip(text)
    return text if form is None else form


def _hendrycks_strip(text: str) -> str | None:
    """`_strip_string`; None where it raises."""
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for command in _HENDRYCKS_DELETED:
        text = text.replace(command, "")
    text, *units = text.split("\\text{ ")
    if len(units) > 1:
        return None
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    if "\\sqrt\\sqrt" in text or text.endswith("\\sqrt"):
        return None
    text = _ONE_CHARACTER_ROOT.sub(r"\\sqrt{\1}", text).replace(" ", "")
    braced = _braced_fractions(text)
    if braced == "0.5":
        return "\\frac{1}{2}"
    if braced is not None and _INTEGER_RATIO.fullmatch(braced):
        return "\\frac{" + braced.replace("/", "}{") + "}"
    return braced


def _braced_fractions(text: str) -> str | None:
    r"""`\frac12` as `\frac{1}{2}` (`_fix_fracs`); None where that raises."""
    head, *parts = text.split("\\frac")
    braced = [head]
    for part in parts:
        if not part:
            return None
        if part[0] == "{":
            braced.append(part)
        elif len(part) == 1:
            return text
        else:
            rest = part[1:] if part[1] == "{" else "{" + part[1] + "}" + part[2:]
            braced.append("{" + part[0] + "}" + rest)
    return "\\frac".join(braced)


def loose_form(answer: str) -> str | None:
    """The answer after `_normalize`; None where it has more LaTeX than is turned into text here."""
    text = _without_words(answer)
    number = _float(text)
    if number is not None and _near_integer(number):
        text = str(round(number))
    if "\\" in text:
        if len(text) > MAX_LATEX_CHARACTERS:
            return None
        text = _latex_to_text(text)
    text = _MIXED_NUMBER.sub(r"\1+\2", _MINUS.sub("-", text))
    text = text.replace(" ", "").replace("{", "").replace("}", "").lower()
    if is_integer(text):
        text = str(int(float(text.replace(",", ""))))
    return text


def _without_words(answer: str) -> str:
    """Without text command, currency, percent, units, degree sign, outer braces; "and" as a comma."""
    command = _TEXT_COMMAND.search(answer)
    text = answer if command is None else command["text"]
    for old, new in _LOOSE_REPLACED:
        text = text.replace(old, new)
    for unit, pattern in _UNIT_PATTERNS:
        if unit in text:
            text = pattern.sub("", text)
    text = _DEGREE_SIGN.sub("", text)
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    return _THIN_COMMA.sub("", text)


def _latex_to_text(latex: str) -> str:
    """`_parse_latex`; the LaTeX itself where that raises, as it does on deep nesting."""
    spaced = latex.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac").replace("\\frac", " \\frac")
    make_converter, walker_context = _converter()
    try:
        text = make_converter().latex_to_text(spaced, latex_context=walker_context)
    except Exception:  # noqa: BLE001 - the library raises nearly anything; upstream ignores it too
        return latex
    for sign, name in _SIGNS:
        text = text.replace(sign, name)
    return str(text.strip())


@cache
def _converter() -> tuple[Any, Any]:
    """What makes a converter, and the walker's context: building the two contexts anew, as upstream
    does for every answer, takes most of the time. Converters keep state, so each text gets its own."""
    from pylatexenc import latex2text, latexwalker

    logging.getLogger("pylatexenc").setLevel(logging.ERROR)  # it warns of what it cannot read
    context = latex2text.get_default_latex_context_db()
    return lambda: latex2text.LatexNodes2Text(
        latex_context=context
    ), latexwalker.get_default_latex_context_db()


def is_integer(text: str) -> bool:
    """`_str_is_int`: a number within 1e-7 of an integer, perhaps with thousands commas."""
    number = _float(without_thousands_commas(text))
    return number is not None and _near_integer(number)


def without_thousands_commas(text: str) -> str:
    """`_strip_properly_formatted_commas`."""
    while "," in text and (shorter := _THOUSANDS_COMMA.sub(r"\1\3\4", text)) != text:
        text = shorter
    return text


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _near_integer(number: float) -> bool:
    try:
        return abs(number - round(number)) <= 1e-7
    except (ValueError, OverflowError):  # not a number, infinite
        return False
