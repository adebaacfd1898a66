r"""Tokens of an answer: LaTeX as models write it, plain text mathematics, and words among them.

One pass over the text, linear in its length, with a size limit: what is over it is `TooBig`, never
guessed at. Layout (`\left`, `\,`, `\displaystyle`) is dropped here, so no later stage sees it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_CHARACTERS = 2000
"""The longest answer of MATH has 159 characters."""
MAX_DIGITS = 400

Kind = Literal["number", "symbol", "word", "text", "command", "op", "end"]


class Unreadable(ValueError):
    """The text is not mathematics that we can read."""


class TooBig(Unreadable):
    """Reading or evaluating the text would exceed a limit."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `text` as written for numbers (`1,234`), the name for commands, the content for texts.

    Attributes:
        value: of a number.
        spaced: whether white space stood before it.
    """

    kind: Kind
    text: str
    value: Fraction = Fraction(0)
    spaced: bool = False


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?)")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_CHARACTERS = {
    **dict.fromkeys("−–—﹣‐‑", "-"),
    **dict.fromkeys("×✕·⋅∙∗", "*"),
    **dict.fromkeys("÷∕⁄", "/"),
    "∖": "\\setminus ",
    **dict.fromkeys("\u00a0\u2009\u202f\u3000\u2002\u2003", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2061\u2062\ufeff", ""),
    "≤": "\\le ",
    "≥": "\\ge ",
    "⩽": "\\le ",
    "⩾": "\\ge ",
    "≠": "\\neq ",
    "≈": "\\approx ",
    "≡": "\\equiv ",
    "∞": "\\infty ",
    "√": "\\sqrt ",
    "∛": "\\sqrt[3] ",
    "°": "^\\circ ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "π": "\\pi ",
    "′": "'",
    "，": ", ",
    "；": "; ",
    "。": ". ",
    "、": ", ",
    "≅": "\\approx ",
}
_UNUSUAL = str.maketrans(_CHARACTERS)

_SIZES = re.compile(r"\\(?:left|right|middle|[bB]ig{1,2}[lrm]?)(?![a-zA-Z])\s*(?:\.(?!\d))?")
_LAYOUT = re.compile(
    r"\\(?:display|text|script|scriptscript)style(?![a-zA-Z])|\\(?:no)?limits(?![a-zA-Z])"
    r"|\\(?:[hv]space\*?|[hv]?phantom)\s*(?:\{[^{}]*\}|[^{}\\])|\\(?:noindent|hfill|strut|nonumber|par|bf|rm|it)(?![a-zA-Z])"
)
_JOINED_DIGITS = re.compile(r"(?<=\d)(?:\{,\}|,\s*\\!|\\!|\\,)\s*(?=\d{3}(?!\d))")
_SPACING = re.compile(r"(?<!\\)\\[,;:!> ]|~")
_ORDINAL = re.compile(r"(?<=\d)\s*\^\s*\{?\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*)?(?:st|nd|rd|th)\b\s*\}{0,2}")
_BRACED_DIGITS = re.compile(r"(?<![a-zA-Z_^}])\{(\d+)\}\s*_")
_UNION = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_BRACED_WORD = re.compile(r"(?<![\\a-zA-Z_^}\]{])\{([a-zA-Z]{1,12})\}")
_GLUED_WORD = re.compile(r"(?<=[\d)}\]])(or|and)(?=[A-Z(\\])")
_GLUED_QUAD = re.compile(r"\\(q?quad)(?=[a-zA-Z])")
_GLUED_FUNCTION = re.compile(
    r"\\(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|pi|cdot)(?=[a-zA-Z])(?!h(?![a-zA-Z])|s(?![a-zA-Z]))"
)
_BACKSLASHES = re.compile(r"\\+")
_QUOTED = re.compile(r"\\\\[a-zA-Z(){}\[\]%$,;:!|]")
_EMPHASIS = re.compile(
    r"\\(?:text)?color\s*\{[a-zA-Z!\d]+\}|\\colorbox\s*\{[a-zA-Z]+\}|\\tag\*?\s*\{[^{}]*\}|\\ensuremath(?![a-zA-Z])|\\text\s*\{\s*\}"
    r"|\\(?:mathbf|mathrm|mathit|mathsf|boldsymbol|bm|textbf|textit|emph|underline|text)\s*(?=\{[^{}]*[\\{])"
)
"""Commands that only change how their argument looks; those of letters only where it is more than words."""
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z(\[{])")
_SPACED_THOUSANDS = re.compile(
    r"(?<![\d.,'’_^])(?<![\d}\])] )[1-9]\d{0,2}(?:(?:(?: \d{3})+|(?:['’]\d{3})+)(?:\.\d+)?|(?:\.\d{3}){2,})"
    r"(?![\d'’]|[.,]\d)(?! ?/)(?! \d)"
)
"""`1 234 567.8`, `1'234'567` and `1.234.567` (at least two points), the whole of it."""
_SPACED_DECIMALS = re.compile(r"(?<=\d)\.(?:\d{3} )+\d{1,3}(?![\d ])")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*(?:\{\d+\}|\d)|\d+\.\(\d+\))
    |(?P<thousands>[1-9]\d{0,2}(?:,\d{3})+(?![\d])(?:\.\d+)?)
    |(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)
    |\\(?P<texted>text(?:bf|it|rm|sf|tt|normal|sc|up|md)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|boldsymbol
        |operatorname\*?|mathbb|mathcal|mathscr|bm|emph|underline)\s*\{(?P<content>[^{}]*)\}
    |\\(?P<command>[a-zA-Z]+|[{}|%$&\#_])
    |(?P<newline>\\\\)
    |(?P<letters>[^\W\d_]+)
    |(?P<power>\*\*)
    |(?P<relation><=|>=|!=|==|=<|->|<>)
    |(?P<op>.)""",
    re.VERBOSE | re.DOTALL,
)
_TEXTED_MATHS = (
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "boldsymbol",
    "bm",
    "mathcal",
    "mathscr",
    "underline",
)
_RELATIONS = {"<=": "le", "=<": "le", ">=": "ge", "!=": "neq", "<>": "neq", "->": "to", "==": "="}
_NAMED_OPERATORS = {
    "le": "le", "leq": "le", "leqslant": "le", "ge": "ge", "geq": "ge", "geqslant": "ge",
    "lt": "<", "gt": ">", "ne": "neq", "neq": "neq", "approx": "approx", "sim": "approx",
    "simeq": "approx", "equiv": "equiv", "in": "in", "to": "to", "rightarrow": "to",
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "colon": ":", "pm": "pm", "mp": "mp",
    "cup": "cup", "cap": "cap", "setminus": "setminus", "backslash": "setminus",
    "land": "and", "wedge": "and", "lor": "or", "vee": "or",
    "lbrace": "\\{", "rbrace": "\\}", "{": "\\{", "}": "\\}", "lvert": "|", "rvert": "|", "vert": "|", "mid": "mid",
    "lbrack": "[", "rbrack": "]", "langle": "(", "rangle": ")", "%": "%", "$": "$",
    "quad": "quad", "qquad": "quad", "dots": "dots", "ldots": "dots", "cdots": "dots",
}  # fmt: skip


def clean(text: str) -> str:
    """Text with unusual characters spelled out and layout removed. Linear in the text."""
    if "\\begin" not in text:
        text = _NEW_LINE.sub(", ", text)
    text = _respelled(_EMPHASIS.sub(" ", undoubled(text)))
    if not text.isascii():
        text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
        text = _ROOT.sub(r"\\sqrt{\1}", text)
        text = _VULGAR_FRACTION.sub(_vulgar_fraction, text)
        text = unicodedata.normalize("NFKC", text.translate(_UNUSUAL)).translate(_UNUSUAL)
    if "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _ORDINAL.sub("", text.replace("{:}", ":"))
    text = _UNION.sub(r"\\cup ", _BRACED_DIGITS.sub(r"\1_", text))
    text = _BRACED_WORD.sub(r"\\text{\1}", text)
    text = _LAYOUT.sub(" ", _SIZES.sub("", text))
    text = _GLUED_WORD.sub(r" \1 ", _GLUED_QUAD.sub(r"\\\1 ", _JOINED_DIGITS.sub("", text)))
    text = _SPACING.sub(" ", text).strip()
    if " " in text or "'" in text or text.count(".") > 1:
        text = _SPACED_THOUSANDS.sub(_ungrouped, text)
        text = _SPACED_DECIMALS.sub(lambda run: run[0].replace(" ", ""), text)
    text = _GLUED_FUNCTION.sub(r"\\\1 ", text)
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text


_NEW_LINE = re.compile(r"(?<!\\)\\\\\s*(?=[a-zA-Z](?:_\d)?\s*=)")  # between equations: x=1 \\ y=2
_SPELLINGS = (
    ("\\choose", re.compile(r"\{\s*([^{}\\]{1,20})\\choose\s*([^{}\\]{1,20})\}"), r"\\binom{\1}{\2}"),
    ("C_", re.compile(r"(?:\{\})?[_^]\{?(\d{1,4})\}?C_\{?(\d{1,4})\}?"), r"\\binom{\1}{\2}"),
    ("C(", re.compile(r"(?<![a-zA-Z\\])C\((\d{1,4}), ?(\d{1,4})\)"), r"\\binom{\1}{\2}"),
    ("10", re.compile(r"(?<=\d) ?x ?(?=10\s?\^)"), r"\\times "),
    ("&", re.compile(r"&\s*(?==|<|>|\\[lg]eq?(?![a-zA-Z]))|(?<==)\s*&"), " "),
    ("/", re.compile(r"(?<=\d) ?(k?m|cm|ft|mi)/(s|h|hr|min)(?:\^?\{?(2)\}?)?$"), r"\\text{ \1/\2^\3}"),
    (
        "",
        re.compile(r"(?:\^\s*\{?\\circ\}?|°) ?(?:\\(?:text|mathrm)\s*\{ ?)?([CF])(?![a-zA-Z])\}?$"),
        r"\\text{ degrees \1}",
    ),
)
"""What a text has to hold, ways to write a thing, and the one that the parser reads."""
_ENDLESS = re.compile(r"(\d{0,30}\.)(\d{2,60})\s*(?:\.\.\.|\\[lc]?dots(?![a-zA-Z])|…)")


def _respelled(text: str) -> str:
    for needed, pattern, spelling in _SPELLINGS:
        if needed in text:
            text = pattern.sub(spelling, text)
    return _ENDLESS.sub(_endless, text) if "." in text else text


def _endless(match: re.Match[str]) -> str:
    r"""`0.1666...` as `0.1\overline{6}`: the shortest block that ends the digits at least twice (a digit
    three times); other digits as they are."""
    whole, digits = match[1], match[2]
    for size in range(1, len(digits) // 2 + 1):
        block, times = digits[-size:], 3 if size == 1 else 2
        if digits.endswith(block * times):
            while digits.endswith(block):
                digits = digits.removesuffix(block)
            return f"{whole}{digits}\\overline{{{block}}}"
    return match[0]


def undoubled(text: str) -> str:
    r"""Text with half its backslashes where all come in pairs (`\\\\frac{1}{2}`), as they do in a quoted string."""
    if "\\\\" not in text:
        return text
    for _ in range(2):
        runs = _BACKSLASHES.findall(text)
        if not runs or any(len(run) % 2 for run in runs) or _QUOTED.search(text) is None:
            break
        text = _BACKSLASHES.sub(lambda run: run[0][: len(run[0]) // 2], text)
    return text


def _ungrouped(match: re.Match[str]) -> str:
    digits = re.sub(r"[^\d.]", "", match[0])
    return digits if digits.count(".") < 2 else digits.replace(".", "")


def _vulgar_fraction(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


def tokenize(text: str) -> list[Token]:
    """Tokens of a cleaned text, with an `end` token last.

    Raises:
        TooBig: the text or one of its numbers is over the size limit.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooBig(f"{len(text)} characters")
    tokens: list[Token] = []
    depth, spaced, place = 0, False, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        assert match is not None  # the last branch takes any character
        place = match.end()
        kind = match.lastgroup
        if kind == "space":
            spaced = True
            continue
        if kind == "thousands" and depth:  # (1,234) is a pair
            match = _TOKEN.match(text, match.start(), match.start() + match[0].index(","))
            assert match is not None
            place, kind = match.end(), "number"
        token = _token(kind, match, spaced)
        depth += (token.text in ("(", "[", "\\{")) - (token.text in (")", "]", "\\}"))
        tokens.append(token)
        spaced = False
    tokens.append(Token("end", "", spaced=spaced))
    return tokens


def _token(kind: str | None, match: re.Match[str], spaced: bool) -> Token:
    text = match[0]
    if kind in ("number", "thousands"):
        return Token("number", text, _number(text.replace(",", "")), spaced)
    if kind == "repeating":
        return Token("number", text, _repeating(text), spaced)
    if kind == "content":
        return _texted(match["texted"], match["content"].strip(), spaced)
    if kind == "command":
        name = match["command"]
        operator = _NAMED_OPERATORS.get(name)
        if operator is not None:
            return Token("op", operator, spaced=spaced)
        return Token("command", "|" if name == "|" else name, spaced=spaced)
    if kind == "letters":
        return Token("symbol" if len(text) == 1 else "word", text, spaced=spaced)
    if kind == "relation":
        return Token("op", _RELATIONS[text], spaced=spaced)
    return Token("op", {"newline": "\\\\", "power": "^"}.get(kind or "", text), spaced=spaced)


def _texted(command: str, content: str, spaced: bool) -> Token:
    r"""`\mathrm{e}` is a letter, `\mathbb{R}` a command, `\operatorname{lcm}` a word, `\text{ cm}` text."""
    if command == "mathbb" or command.startswith("operatorname"):
        return Token("command", content if command != "mathbb" else "mathbb" + content, spaced=spaced)
    if command in _TEXTED_MATHS:
        if len(content) == 1 and content.isalpha():
            return Token("symbol", content, spaced=spaced)
        if content.replace(".", "", 1).isdecimal() and content.isascii():
            return Token("number", content, _number(content), spaced)
    return Token("text", content, spaced=spaced)


def _number(text: str) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 4 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise TooBig("a number with too many digits")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


def _repeating(text: str) -> Fraction:
    r"""`0.1\overline{6}` as 1/6."""
    if len(text) > MAX_DIGITS:
        raise TooBig("a number with too many digits")
    plain, _, block = text.replace("(", "\\(").partition("\\")
    digits = re.sub(r"\D", "", block)
    whole, _, fixed = plain.partition(".")
    scale = 10 ** len(fixed)
    tail = Fraction(int(digits), (10 ** len(digits) - 1) * scale)
    return Fraction(int((whole + fixed) or "0"), scale) + tail
