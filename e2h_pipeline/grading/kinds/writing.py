r"""Ways to write a value, drawn by a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from random import Random

LETTERS = ("x", "y", "t", "n", "a", "z")


def whole(rng: Random, low: int = -12, high: int = 30) -> int:
    """A whole number that is not 0."""
    return rng.choice([n for n in range(low, high + 1) if n])


def rational(rng: Random) -> Fraction:
    """A fraction that is no whole number."""
    while True:
        value = Fraction(whole(rng, -60, 90), rng.randint(2, 24))
        if value.denominator > 1:
            return value


def another(rng: Random, value: Fraction) -> Fraction:
    """A wrong number near a right one: a slip of sign, of a digit, or upside down."""
    options = [-value, value + 1, value - 1, value + Fraction(1, 10), 2 * value]
    if value.numerator:
        options += [1 / value, Fraction(value.numerator + 1, value.denominator)]
    return rng.choice(
        [other for other in options if other != value and other != 100 * value != 10000 * other]
    )


def grouped(rng: Random, number: int) -> str:
    """A whole number, its thousands in groups or not."""
    sign = "-" if number < 0 else ""
    marks = (",", "{,}", ",\\!", "\\,", " ", "~", "\\ ", "\u2009", "\u202f", "\\;", "")
    return sign + f"{abs(number):,}".replace(",", rng.choice(marks))


def number(rng: Random, value: Fraction | int, decimals: bool = True) -> str:
    """A rational number: as a fraction, reduced or not, mixed, or as a decimal where that ends."""
    value = Fraction(value)
    sign, p, q = "-" if value < 0 else "", abs(value.numerator), value.denominator
    if q == 1:
        return rng.choice([f"{sign}{p}", f"{sign}{p}", f"{sign}{p}.0", f"{sign} {p}", f"{{{sign}{p}}}"])
    k = rng.choice((1, 1, 2, 3, 7))
    forms = [
        f"{sign}\\frac{{{p}}}{{{q}}}",
        f"{sign}\\dfrac{{{p}}}{{{q}}}",
        f"\\tfrac{{{value.numerator}}}{{{q}}}",
        f"{sign}{p}/{q}",
        f"{sign}\\frac{{{k * p}}}{{{k * q}}}",
        f"{sign}\\frac {{{p}}} {{{q}}}",
        f"{sign}\\left(\\frac{{{p}}}{{{q}}}\\right)",
    ]
    if p < 10 and q < 10:
        forms.append(f"{sign}\\frac{p}{q}" if p > 0 else forms[0])
    if p > q:
        forms += [f"{sign}{p // q}\\frac{{{p % q}}}{{{q}}}", f"{sign}{p // q} {p % q}/{q}"]
    if decimals and 10**6 % q == 0:
        text = decimal(Fraction(p, q), 6).rstrip("0")
        forms += [
            sign + text,
            sign + text + "0",
            sign + text.removeprefix("0") if text[0] == "0" else sign + text,
        ]
    return rng.choice(forms)


def decimal(value: Fraction, places: int) -> str:
    """A number rounded half up to so many places."""
    scaled = abs(value) * 10**places
    digits = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    whole_part, rest = divmod(digits, 10**places)
    return ("-" if value < 0 else "") + (f"{whole_part}.{rest:0{places}d}" if places else str(whole_part))


def significant(value: Fraction, digits: int) -> str:
    """A number of size 0.001 to 10^9 rounded to so many significant digits, with a decimal point."""
    places = digits - 1
    size = abs(value)
    while size >= 10:
        size, places = size / 10, places - 1
    while size < 1:
        size, places = size * 10, places + 1
    return decimal(value, max(places, 1))


def root(rng: Random, factor: int, radicand: int, below: int = 1) -> str:
    r"""`factor * sqrt(radicand) / below` in one of many ways."""
    sign, size = "-" if factor < 0 else "", abs(factor)
    inside = rng.choice(
        (f"\\sqrt{{{radicand}}}", f"\\sqrt {{{radicand}}}", f"{radicand}^{{1/2}}", f"\\sqrt{{{radicand}}}")
    )
    whole_inside = f"\\sqrt{{{radicand * size * size}}}"
    above = rng.choice(
        (
            inside
            if size == 1
            else f"{size}{inside if inside[0] != str(radicand)[0] else chr(92) + 'cdot ' + inside}",
            whole_inside,
        )
    )
    if below == 1:
        return sign + above
    return rng.choice(
        (
            f"{sign}\\frac{{{above}}}{{{below}}}",
            f"{sign}({above})/{below}",
            f"\\frac{{{sign}{above}}}{{{below}}}",
        )
    )


def brackets(rng: Random, inside: str, kind: str = "()") -> str:
    """Brackets of some size around a text."""
    opener, closer = ("\\{", "\\}") if kind == "{}" else (kind[0], kind[1])
    left, right = rng.choice(
        (("", ""), ("", ""), ("\\left", "\\right"), ("\\big", "\\big"), ("\\bigl", "\\bigr"))
    )
    space = rng.choice(("", "", " ", "\\,"))
    return f"{left}{opener}{space}{inside}{space}{right}{closer}"


def listed(rng: Random, items: Sequence[str], separator: str | None = None) -> str:
    """Items with commas, and perhaps `and` before the last."""
    mark = separator or rng.choice((", ", ", ", ",\\ ", " , "))
    return mark.join(items)


def joined(rng: Random, items: Sequence[str]) -> str:
    """Items as alternatives: with commas, `and` or `or`."""
    if len(items) < 2 or rng.random() < 0.4:
        return listed(rng, items)
    word = rng.choice((" and ", " or ", "\\text{ and }", "\\text{ or }", ", \\text{ and } "))
    return ", ".join(items[:-1]) + word + items[-1]


def shuffled(rng: Random, items: Sequence[str]) -> list[str]:
    """Another order of two or more items."""
    found = list(items)
    while found == list(items) and len(set(items)) > 1:
        rng.shuffle(found)
    return found


def polynomial(rng: Random, coefficients: Sequence[int], letter: str, shuffle: bool = True) -> str:
    """A polynomial, lowest coefficient first, its terms in some order."""
    terms = []
    for power, size in enumerate(coefficients):
        if not size:
            continue
        name = (
            ""
            if power == 0
            else letter
            if power == 1
            else rng.choice((f"{letter}^{power}", f"{letter}^{{{power}}}"))
        )
        count = "" if abs(size) == 1 and power else str(abs(size))
        terms.append(("-" if size < 0 else "+", count + name))
    if shuffle and rng.random() < 0.5:
        rng.shuffle(terms)
    else:
        terms.reverse()
    gap = rng.choice(("", " "))
    text = "".join(f"{gap}{sign}{gap}{term}" for sign, term in terms).strip()
    return text.removeprefix("+").strip() or "0"


_TYPESET = (
    "\\textbf{{{}}}",
    "\\mathbf{{{}}}",
    "\\color{{red}}{{{}}}",
    "\\textcolor{{blue}}{{{}}}",
    "\\underline{{{}}}",
    "\\displaystyle {}",
    "\\displaystyle{{{}}}",
    "{{{}}}",
    "\\quad {}",
    "\\ {}",
    "\\boxed{{{}}}",
    "\\fbox{{{}}}",
    "{} \\blacksquare",
    "\\mathbf {{{}}}",
    "{{\\color{{red}} {}}}",
    "\\boldsymbol{{{}}}",
    "{}\\,",
    "\\text{{ }}{}",
)
_QUOTED = (
    "`{}`",
    "``{}``",
    '"{}"',
    "'{}'",
    "“{}”",
    "**{}**",
    "__{}__",
    "*{}*",
    "***{}***",
    "_{}_",
    "${}$",
    "$${}$$",
    "\\({}\\)",
    "\\[{}\\]",
    "$\\boxed{{{}}}$",
    "**${}$**",
    "`${}$`",
    "  {}  ",
    "{}.",
    "${}$.",
    "{} .",
    "<b>{}</b>",
    "<answer>{}</answer>",
    "```\n{}\n```",
    "«{}»",
    "~~{}~~",
    "**`{}`**",
    "__**{}**__",
    '"**{}**"',
    "{},",
    "$ {} $.",
    "{}</answer>",
    "\n{}\n",
    "**{}**.",
    "✅ {}",
)


def decorated(rng: Random, text: str, rounds: int = 1) -> str:
    """A text with decoration around it: LaTeX inside, quotes and Markdown outside."""
    if rounds > 1 or rng.random() < 0.4:
        text = rng.choice(_TYPESET).format(text)
    if rounds > 1 or rng.random() < 0.7:
        text = rng.choice(_QUOTED).format(text)
    return text
