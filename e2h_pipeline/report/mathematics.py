"""Text with LaTeX mathematics as MathML, which browsers draw without a script or a font of ours.

The text comes from a model and is not trusted. A converter makes MathML of it, which is built anew
here: all text is escaped, and only elements and attributes of MathML Core are kept that can neither
load, link nor style anything. A formula stays as it was written where it cannot be converted, is too
long, or defines macros, which can grow without bound.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LONGEST_TEXT = 20_000  # characters; formulas of longer texts are not looked for
_DEEPEST = 40  # braces within braces
# A formula may have 2,000 characters.
_MATHEMATICS = re.compile(
    r"\\\$"
    r"|\$\$(?P<display>[^$]{1,2000})\$\$"
    r"|\$(?P<inline>(?:[^$\\]|\\.){1,2000})\$"
    r"|\\\[(?P<brackets>(?:[^\\]|\\(?!\]).){1,2000})\\\]"
    r"|\\\((?P<parens>(?:[^\\]|\\(?!\)).){1,2000})\\\)"
    r"|(?P<environment>\\begin\{(?P<name>(?:align|equation|gather|eqnarray)\*?)\}.{1,2000}?\\end\{(?P=name)\})",
    re.DOTALL,
)
_MACROS = re.compile(
    r"\\(?:new|renew|provide)?(?:command|environment)|\\[egx]?def\b|\\let\b|\\DeclareMathOperator"
)
_ELEMENTS = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mstyle", "mpadded", "mphantom"),
    *("mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "mover", "munderover"),
    *("mmultiscripts", "mprescripts", "mtable", "mtr", "mtd"),
}
# Attributes by the form that their values must have.
_WORD, _LENGTH = re.compile(r"[a-z-]{1,24}"), re.compile(r"-?[\d.]{1,8}(?:em|ex|px|pt|mu|%)?")
_ATTRIBUTES = {
    **dict.fromkeys(
        (
            "display",
            "displaystyle",
            "mathvariant",
            "stretchy",
            "fence",
            "separator",
            "form",
            "largeop",
            "symmetric",
        ),
        _WORD,
    ),
    **dict.fromkeys(("accent", "accentunder", "movablelimits"), _WORD),
    **dict.fromkeys(
        ("width", "height", "depth", "lspace", "rspace", "minsize", "maxsize", "linethickness", "voffset"),
        _LENGTH,
    ),
    **dict.fromkeys(("scriptlevel", "columnspan", "rowspan"), re.compile(r"[+-]?\d{1,2}")),
}
# Attributes that browsers no longer draw, and classes of the page that do.
_BOXED = {
    "box": "boxed",
    "updiagonalstrike": "struck",
    "downdiagonalstrike": "struck",
    "horizontalstrike": "struck",
}
_ALIGNED = {"left": "left", "right": "right"}


def rendered(text: str) -> Markup:
    """Text as HTML: formulas as MathML, everything else escaped.

    Formulas stand between `$`, `$$`, `\\(` or `\\[`, or in an environment of aligned equations.
    """
    if len(text) > _LONGEST_TEXT:
        return escape(text)
    parts, end = [], 0
    for found in _MATHEMATICS.finditer(text):
        parts.append(escape(text[end : found.start()]))
        end = found.end()
        group = next((name for name, text in found.groupdict().items() if text is not None), None)
        if group is None:  # \$
            parts.append(escape("$"))
        else:
            shown = "inline" if group in ("inline", "parens") else "block"
            formula = found[group]
            parts.append(_formula(formula, shown) or Markup("<code>{}</code>").format(found[0]))
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


@lru_cache(maxsize=4096)
def _formula(latex: str, display: str) -> Markup | None:
    """MathML of a formula; None where it cannot be converted."""
    if _MACROS.search(latex) or _depth(latex) > _DEEPEST:
        return None
    from latex2mathml.converter import convert_to_element

    try:
        element = convert_to_element(latex, display=display)
    except Exception:  # noqa: BLE001  the converter has no common error, and broken LaTeX is ordinary
        return None
    return Markup(_element(element))


def _depth(latex: str) -> int:
    """How deep braces, `\\left` and `\\begin` are nested."""
    depth = deepest = 0
    for mark in re.findall(r"[{}]|\\left\b|\\right\b|\\begin\b|\\end\b", latex):
        depth += 1 if mark in ("{", r"\left", r"\begin") else -1
        deepest = max(deepest, depth)
    return deepest


def _element(element: Element) -> str:
    """An element and its content as text; of an element that is not allowed, its content alone."""
    name, style = element.tag, ""
    if name == "menclose":
        name, style = "mrow", _BOXED.get(element.get("notation", ""), "")
    elif name == "mtd":
        style = _ALIGNED.get(element.get("columnalign", ""), "")
    inside = str(escape(html.unescape(element.text or ""))) + "".join(
        _element(child) + str(escape(html.unescape(child.tail or ""))) for child in element
    )
    if name not in _ELEMENTS:
        return f"<mrow>{inside}</mrow>"
    kept = [
        f" {key}={quoteattr(value)}"
        for key, value in element.items()
        if key in _ATTRIBUTES and _ATTRIBUTES[key].fullmatch(value)
    ]
    return f"<{name}{''.join(kept)}{f' class={quoteattr(style)}' if style else ''}>{inside}</{name}>"
