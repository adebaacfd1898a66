r"""Kinds of bare answers; see `cases`."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial, isqrt
from random import Random

from e2h_pipeline.grading.kinds.cases import Kinds
from e2h_pipeline.grading.kinds.writing import (
    LETTERS,
    another,
    brackets,
    decimal,
    decorated,
    grouped,
    joined,
    listed,
    number,
    polynomial,
    rational,
    root,
    shuffled,
    significant,
    whole,
)

ANSWERS = Kinds()
Drawn = tuple[str, str]
Asked = tuple[str, str, str]


# Numbers


@ANSWERS
def fractions_and_decimals(rng: Random, equal: bool) -> Drawn:
    """`\\frac{3}{4}`, `0.75`, `3/4`, `6/8`."""
    value = rational(rng)
    return number(rng, value), number(rng, value if equal else another(rng, value))


@ANSWERS
def thousands(rng: Random, equal: bool) -> Drawn:
    """`1,234,567`, `1 234 567`, `1\\,234\\,567`."""
    value = rng.choice((1, 1, -1)) * rng.randint(1000, 10 ** rng.randint(4, 10))
    digits = list(str(value))
    place = rng.randrange(1, len(digits))
    digits[place] = str((int(digits[place]) + rng.randint(1, 9)) % 10)
    wrong = rng.choice((int("".join(digits)), value * 10, -value))
    unit = rng.choice(("", "", "", " \\text{ people}", "\\text{ m}"))
    return grouped(rng, value), grouped(rng, value if equal else wrong) + unit


@ANSWERS
def rounded_decimals(rng: Random, equal: bool) -> Drawn:
    """A decimal of six or more digits for an exact gold value; shorter or wrongly rounded ones are wrong."""
    gold, value = _exact(rng)
    digits = rng.randint(6, 12)
    right = significant(value, digits)
    if equal:
        unit = rng.choice(("", "", "", "x = ", "\\approx "))
        return gold, rng.choice((unit + right, f"${right}$", right))
    slip = rng.choice((-2, -1, 1, 2)) * Fraction(1, 10 ** len(right.partition(".")[2]))
    return gold, rng.choice(
        (significant(value, rng.randint(2, 5)), decimal(Fraction(right) + slip, len(right.partition(".")[2])))
    )


def _exact(rng: Random) -> tuple[str, Fraction]:
    """The text of a number without a finite decimal, and its value to 40 digits."""
    if rng.random() < 0.5:
        value = Fraction(rng.randint(1, 400), rng.choice((3, 7, 9, 11, 13, 17, 21, 27)))
        while 10**6 % value.denominator == 0:
            value += Fraction(1, 3)
        return number(rng, value), value
    n, k = rng.choice((2, 3, 5, 6, 7, 10, 11, 13)), rng.randint(1, 20)
    value = Fraction(isqrt(n * k * k * 10**80), 10**40)
    return root(rng, k, n), value


@ANSWERS
def repeating_decimals(rng: Random, equal: bool) -> Drawn:
    r"""`0.\overline{36}`, `0.3636...`, `4/11`."""
    size = rng.randint(1, 3)
    block = f"{rng.randint(1, 10**size - 2):0{size}d}"
    before = rng.choice(("", "", "1", "25"))
    value = (int(before or 0) + Fraction(int(block), 10**size - 1)) / 10 ** len(before)
    endless = f"0.{before}{block * (3 if size > 1 else 5)}"
    if not equal:
        return number(rng, value), rng.choice((f"0.{before}{block}", number(rng, another(rng, value))))
    dots = rng.choice(("...", "\\ldots", "…", "\\dots"))
    return number(rng, value), rng.choice(
        (f"0.{before}\\overline{{{block}}}", endless + dots, f".{before}\\overline{{{block}}}")
    )


@ANSWERS
def powers_of_ten(rng: Random, equal: bool) -> Drawn:
    """`3.2 \\times 10^5`, `320000`, `3.2e5`, `0.00032`."""
    digits, exponent = rng.randint(11, 999), rng.randint(-7, 8)
    value = Fraction(digits) * Fraction(10) ** exponent
    return _scientific(rng, value), _scientific(
        rng, value if equal else value * rng.choice((10, Fraction(1, 10), -1))
    )


def _scientific(rng: Random, value: Fraction) -> str:
    exponent = len(str(int(abs(value)))) - 1 if abs(value) >= 1 else -1
    while abs(value) < Fraction(10) ** exponent:
        exponent -= 1
    mantissa = decimal(value / Fraction(10) ** exponent, 4).rstrip("0").rstrip(".")
    plain = decimal(value, 12).rstrip("0").rstrip(".")
    times = rng.choice((" \\times ", "\\cdot", " \\times", " × ", "*"))
    return rng.choice(
        (
            f"{mantissa}{times}10^{{{exponent}}}",
            plain,
            f"{mantissa}e{exponent}",
            f"{mantissa}{times} 10^{{{exponent}}}",
        )
    )


@ANSWERS
def roots_of_numbers(rng: Random, equal: bool) -> Drawn:
    """`\\sqrt{12}`, `2\\sqrt{3}`, `\\frac{6}{\\sqrt{3}}`."""
    n, k, below = rng.choice((2, 3, 5, 6, 7, 10, 11)), whole(rng, -6, 9), rng.choice((1, 1, 2, 5))
    added = rng.choice((0, 0, whole(rng)))
    prefix = f"{added} + " if added else ""
    gold = prefix + f"\\frac{{{k}\\sqrt{{{n}}}}}{{{below}}}" if below > 1 else prefix + root(rng, k, n)
    if not equal:
        k, n = rng.choice(((k + 1 or 2, n), (-k, n), (k, n + 2), (k * n, n)))
    text = rng.choice((root(rng, k, n, below), f"\\frac{{{k * n}}}{{{below}\\sqrt{{{n}}}}}"))
    return gold, f"{added} + {text}" if added and text[0] != "-" else f"{text} + {added}" if added else text


@ANSWERS
def counts(rng: Random, equal: bool) -> Drawn:
    """Factorials, binomials and powers, and what they come to."""
    n, k = rng.randint(4, 12), rng.randint(2, 3)
    texts, value = rng.choice(
        (
            ((f"{n}!", f"{n} \\cdot {n - 1}!"), factorial(n)),
            (
                (f"\\binom{{{n}}}{{{k}}}", f"\\frac{{{n}!}}{{{k}!{n - k}!}}", f"\\dbinom{{{n}}}{{{k}}}"),
                comb(n, k),
            ),
            ((f"{k}^{{{n}}}", f"{k}^{n}" if n < 10 else f"{k}^{{{n}}}", f"{k} \\cdot {k}^{{{n - 1}}}"), k**n),
            ((f"\\log_{{{k}}} {k**n}", f"\\log_{k} {k**n}", f"{n}"), n),
        )
    )
    wrong = rng.choice((value + 1, value - 1, 2 * value, 10 * value))
    one, other = rng.choice(texts), grouped(rng, value if equal else wrong)
    return (one, other) if rng.random() < 0.5 or not equal else (str(value), one)


@ANSWERS
def complex_numbers(rng: Random, equal: bool) -> Drawn:
    """`3 - 2i`, `-2i + 3`, `i(-2 - 3i)`."""
    a, b = whole(rng), whole(rng)
    gold = f"{a} {'+' if b > 0 else '-'} {abs(b)}i"
    if not equal:
        a, b = rng.choice(((a, -b), (-a, b), (b, a) if a != b else (a, b + 1), (a + 1, b)))
    return gold, rng.choice(
        (
            f"{a}{b:+d}i",
            f"{b}i {'+' if a > 0 else '-'} {abs(a)}",
            f"i({b}{-a:+d}i)",
            f"{a} + ({b})i",
            f"{a}{b:+d}\\mathrm{{i}}",
        )
    )


@ANSWERS
def bases(rng: Random, equal: bool) -> Drawn:
    """`204_5`, `204_{5}`, `204_{\\text{five}}`."""
    base = rng.randint(3, 9)
    digits = "".join(str(rng.randrange(base)) for _ in range(rng.randint(2, 4))).lstrip("0") or "10"
    words = ("three", "four", "five", "six", "seven", "eight", "nine")[base - 3]
    gold = f"{digits}_{{{base}}}"
    if equal:
        return gold, rng.choice(
            (
                f"{digits}_{base}",
                f"{digits}_{{\\text{{{words}}}}}",
                f"({digits})_{{{base}}}",
                f"{{{digits}}}_{base}",
            )
        )
    wrong = digits[:-1] + str((int(digits[-1]) + 1) % base)
    return gold, rng.choice((f"{wrong}_{base}", f"{digits}_{{{base + 1}}}", f"{int(digits, base) + 1}"))


# Expressions


@ANSWERS
def polynomials(rng: Random, equal: bool) -> Drawn:
    """Expanded, factored, in another order."""
    letter = rng.choice(LETTERS)
    a, b, c = whole(rng, -7, 9), whole(rng, -7, 9), rng.randint(1, 4)
    gold = polynomial(rng, (a * b, (a + c * b), c), letter, shuffle=False)
    if not equal:
        a, b, letter = rng.choice(((a + 1 or 2, b, letter), (-a, b, letter), (a, b, "k")))
    head = f"{c}{letter}" if c > 1 else letter
    factors = [f"({head}{a:+d})", f"({letter}{b:+d})"]
    return gold, rng.choice(
        (
            "".join(factors),
            " \\cdot ".join(factors[::-1]),
            polynomial(rng, (a * b, a + c * b, c), letter),
            f"{letter}({head}{a + c * b:+d}){a * b:+d}",
        )
    )


@ANSWERS
def quotients(rng: Random, equal: bool) -> Drawn:
    """Fractions with letters: together, apart, with a negative power."""
    letter, a, b, k = rng.choice(LETTERS), whole(rng, -5, 9), whole(rng, -5, 9), rng.randint(2, 9)
    gold = f"\\frac{{{k}}}{{{letter}{a:+d}}}" + f"+{abs(b)}"
    b = abs(b)
    if not equal:
        k, a = rng.choice(((k + 1, a), (k, -a), (-k, a)))
    return gold, rng.choice(
        (
            f"\\frac{{{b}{letter}{k + a * b:+d}}}{{{letter}{a:+d}}}",
            f"{b}+\\dfrac{{{k}}}{{{letter}{a:+d}}}",
            f"{k}({letter}{a:+d})^{{-1}}+{b}",
            f"{b} - \\frac{{{-k}}}{{{letter}{a:+d}}}",
        )
    )


@ANSWERS
def real_domains(rng: Random, equal: bool) -> Drawn:
    """Roots and logarithms of letters: equal where both are real and defined, on the same domain."""
    x, y = rng.sample(("x", "y", "a", "b", "t", "z"), 2)
    k, n, m = rng.randint(2, 45), rng.randint(2, 9), rng.randint(2, 9)
    if equal:
        return rng.choice(
            (
                (f"{k}{x}\\sqrt{{{n}{x}}}", f"{k}\\sqrt{{{n}{x}^3}}"),
                (f"\\sqrt{{{x}^2}}", f"|{x}|"),
                (f"{k}{x}^2\\sqrt{{{n}{x}}}", f"{k}\\sqrt{{{n}{x}^5}}"),
                (f"\\ln {x}^2", f"2\\ln|{x}|"),
                (f"\\sqrt{{{n * n}{x}^2{y}}}", f"{n}|{x}|\\sqrt{{{y}}}"),
                (f"{x}^{{3/2}}", f"{x}\\sqrt{{{x}}}"),
                (f"\\sqrt{{{x}-{k}}}+{n}", f"{n}+({x}-{k})^{{\\frac12}}"),
                (f"\\sqrt[3]{{{x}^2}}", f"{x}^{{\\frac{{2}}{{3}}}}"),
                (f"\\log_{{{n}}} {x} + \\log_{{{n}}} {x}", f"2\\log_{{{n}}} {x}"),
                (f"\\frac{{{x}}}{{\\sqrt{{{x}}}}}", f"\\sqrt{{{x}}}"),
                (f"\\sqrt{{{n * n * m}{x}^3}}", f"{n}{x}\\sqrt{{{m}{x}}}"),
                (f"\\frac{{{x}^2-{n * n}}}{{{x}-{n}}}", f"{x}+{n}"),
                (f"{x}^{{-1/2}}", f"\\frac{{1}}{{\\sqrt{{{x}}}}}"),
                (f"\\sqrt{{{n}-{x}}}", f"({n}-{x})^{{1/2}}"),
            )
        )
    return rng.choice(
        (
            (f"\\sqrt{{{x}^2}}", x),
            (f"\\ln {x}^2", f"2\\ln {x}"),
            (f"\\sqrt{{{x}{y}}}", f"\\sqrt{{{x}}}\\sqrt{{{y}}}"),
            (f"(\\sqrt{{{x}}})^2", x),
            (f"\\sqrt{{{x}^2-{n * n}}}", f"\\sqrt{{{x}-{n}}}\\sqrt{{{x}+{n}}}"),
            (f"{k}{x}\\sqrt{{{n}{x}}}", f"{k}\\sqrt{{{n}{x}^2}}"),
            (f"{k}{x}\\sqrt{{{n}{x}}}", f"{k + 1}\\sqrt{{{n}{x}^3}}"),
            (f"|{x}-{k}|", f"{x}-{k}"),
            (f"|{x}-{k}|", f"{k}-{x}"),
            (f"|{x}+{k}|", f"|{x}|+{k}"),
            (f"\\sqrt{{{x}-{k}}}", f"\\sqrt{{{k}-{x}}}"),
            (f"{x}\\sqrt{{{y}}}", f"\\sqrt{{{x}^2{y}}}"),
            (f"{x}^{{2/3}}", f"{x}^{{3/2}}"),
            (f"\\sqrt[3]{{{x}}}", f"\\sqrt{{{x}}}"),
        )
    )


@ANSWERS
def trigonometry(rng: Random, equal: bool) -> Drawn:
    """Identities, and what only looks like one."""
    x = rng.choice(("x", "\\theta", "t", "\\alpha"))
    if equal:
        return rng.choice(
            (
                (f"\\tan^2 {x} + 1", f"\\sec^2 {x}"),
                (f"2\\sin {x}\\cos {x}", f"\\sin(2{x})"),
                (f"1-\\sin^2 {x}", f"\\cos^2({x})"),
                (f"\\frac{{\\sin {x}}}{{\\cos {x}}}", f"\\tan {x}"),
                (f"\\cos 2{x}", f"2\\cos^2{x}-1"),
                (f"\\cot {x}", f"\\frac{{1}}{{\\tan {x}}}"),
                (f"\\sin^2{x}", f"(\\sin {x})^2"),
                (f"\\csc {x}", f"\\frac1{{\\sin({x})}}"),
                ("\\cos\\frac{\\pi}{3}", "\\frac12"),
                ("\\sin 45^\\circ", "\\frac{\\sqrt2}{2}"),
                ("\\arctan 1", "\\frac{\\pi}{4}"),
                (f"\\sin(-{x})", f"-\\sin {x}"),
            )
        )
    return rng.choice(
        (
            (f"\\tan^2 {x} + 1", f"\\csc^2 {x}"),
            (f"\\sin(2{x})", f"2\\sin {x}"),
            (f"\\cos^2 {x}", f"\\sin^2 {x}"),
            (f"\\tan {x}", f"\\cot {x}"),
            (f"\\sin {x}", f"\\cos {x}"),
            (f"\\cos(-{x})", f"-\\cos {x}"),
            ("\\cos\\frac{\\pi}{3}", "\\frac{\\sqrt3}{2}"),
            (f"\\sin {x}", f"\\arcsin {x}"),
            (f"\\sin^2 {x}", f"\\sin {x}^2"),
        )
    )


# Equations


@ANSWERS
def left_sides(rng: Random, equal: bool) -> Drawn:
    """`\\sin(x) = 42/59`: the left side may be missing or written in another way, but not be another."""
    x = rng.choice(("x", "\\theta", "A", "\\alpha"))
    value = rational(rng)
    names = (
        (f"\\sin({x})", f"\\sin {x}", f"\\sin\\left({x}\\right)"),
        (f"\\cos({x})", f"\\cos {x}"),
        (f"\\tan {x}", f"\\tan({x})"),
        ("a+b", "b+a", "a + b"),
        ("a-b", "-b+a"),
        ("xy", "yx", "x y"),
        ("f(2)", "f\\left(2\\right)"),
        ("f(3)", "f( 3 )"),
        ("AB", "|AB|", "\\overline{AB}"),
        ("CD", "\\overline{CD}"),
        ("\\frac{x}{y}", "x/y"),
        ("\\frac{y}{x}", "y/x"),
        ("g(2)", "g(2)"),
    )
    one, other = rng.sample(names, 2)
    gold = f"{rng.choice(one)} = {number(rng, value)}"
    if equal:
        right = number(rng, value)
        return gold, rng.choice((f"{rng.choice(one)}={right}", right, f"{rng.choice(one)} = {right}"))
    return gold, rng.choice(
        (f"{rng.choice(other)}={number(rng, value)}", f"{rng.choice(one)}={number(rng, another(rng, value))}")
    )


@ANSWERS
def named_values(rng: Random, equal: bool) -> Drawn:
    """`x = 5` and `5`, but not `y = 5`."""
    value, (name, other) = Fraction(whole(rng)), rng.sample(("x", "y", "n", "k", "m", "c", "r", "\\theta"), 2)
    gold = rng.choice((f"{name}={value}", str(value), f"{name} = {value}"))
    if equal:
        return gold, rng.choice(
            (
                f"{name}={number(rng, value)}",
                f"{name} = {value}",
                number(rng, value),
                f"${name}={value}$",
                f"{value} = {name}",
            )
        )
    wrong = number(rng, another(rng, value))
    return rng.choice(((gold, f"{name}={wrong}"), (gold, wrong), (f"{name}={value}", f"{other}={value}")))


@ANSWERS
def functions(rng: Random, equal: bool) -> Drawn:
    """`f(x) = 2x+1`, `y = 2x+1` and `2x+1`."""
    a, b, name = whole(rng, -5, 9), whole(rng), rng.choice("fghpq")
    body, wrong = (
        f"{a}x{b:+d}",
        rng.choice((f"{a}x{-b:+d}", f"{b}x{a:+d}" if a != b else f"{b}x", f"{a}x^2{b:+d}")),
    )
    gold = rng.choice((f"{name}(x)={body}", f"{name}(x) = {body}"))
    if equal:
        return gold, rng.choice(
            (body, f"{b}{a:+d}x", f"y={body}", f"{name}(x)={b} + {a}x".replace("+ -", "- "))
        )
    other = rng.choice([letter for letter in "fghpq" if letter != name])
    return gold, rng.choice((wrong, f"{name}(x)={wrong}", f"{other}(x)={body}", f"{name}^{{-1}}(x)={body}"))


@ANSWERS
def lines(rng: Random, equal: bool) -> Drawn:
    """`y = 2x + 3`, `2x - y + 3 = 0`, `2x - y = -3`."""
    a, b, k = whole(rng, -6, 9), whole(rng, -9, 9), whole(rng, -3, 4)
    gold = rng.choice((f"y = {a}x{b:+d}", f"y={a}x {'+' if b > 0 else '-'} {abs(b)}"))
    if not equal:
        a, b = rng.choice(((-a, b), (a, -b), (a + 1 or 2, b), (b, a) if a != b else (a, b + 1)))
    return gold, rng.choice(
        (
            f"{a}x-y{b:+d}=0",
            f"{a}x - y = {-b}",
            f"y{-b:+d} = {a}x",
            f"{k * a}x{-k:+d}y={-k * b}",
            f"y-{a}x={b}" if a > 0 else f"y+{-a}x={b}",
            f"x = \\frac{{y{-b:+d}}}{{{a}}}",
            f"y={a}x{b:+d}",
        )
    )


@ANSWERS
def curves(rng: Random, equal: bool) -> Drawn:
    """Circles, expanded and by their centre."""
    a, b, r = whole(rng, -5, 6), whole(rng, -5, 6), rng.randint(2, 9)
    gold = f"(x{-a:+d})^2+(y{-b:+d})^2={r * r}"
    if not equal:
        a, b, r = rng.choice(((-a, b, r), (a, -b, r), (a, b, r + 1)))
    return gold, rng.choice(
        (
            f"x^2{-2 * a:+d}x+y^2{-2 * b:+d}y={r * r - a * a - b * b}",
            f"x^2+y^2{-2 * a:+d}x{-2 * b:+d}y{a * a + b * b - r * r:+d}=0",
            f"(y{-b:+d})^2 + (x{-a:+d})^2 = {r}^2",
            f"\\frac{{(x{-a:+d})^2}}{{{r * r}}}+\\frac{{(y{-b:+d})^2}}{{{r * r}}}=1",
        )
    )


# Sets


@ANSWERS
def intervals(rng: Random, equal: bool) -> Drawn:
    """`[2,5)`, `2 \\le x < 5`, `x \\in [2,5)`, `\\{x \\mid 2 \\le x < 5\\}`."""
    low = Fraction(whole(rng)) if rng.random() < 0.7 else rational(rng)
    high = low + rng.randint(1, 12)
    ends = rng.choice(("()", "[)", "(]", "[]"))
    gold = _interval(rng, low, high, ends, plain=True)
    if not equal:
        flipped = rng.choice([other for other in ("()", "[)", "(]", "[]") if other != ends])
        low, high, ends = rng.choice(
            (
                (low, high + 1, ends),
                (low - 1, high, ends),
                (low, high, flipped),
                (-high, -low, ends) if low != -high else (low - 2, high, ends),
            )
        )
    return gold, _interval(rng, low, high, ends)


def _interval(rng: Random, low: Fraction, high: Fraction, ends: str, plain: bool = False) -> str:
    left, right = number(rng, low), number(rng, high)
    between = rng.choice((", ", ",", " , ", ", "))
    bare = brackets(rng, f"{left}{between}{right}", ends)
    first, last = (rng.choice(("\\le", "\\leq", "\\leqslant", "≤")) if end in "[]" else "<" for end in ends)
    chain = f"{left} {first} x {last} {right}"
    back = {"<": ">"}
    reverse = f"{right} {back.get(last, chr(92) + 'ge')} x {back.get(first, chr(92) + 'geq')} {left}"
    return (
        bare
        if plain
        else rng.choice(
            (bare, chain, f"x \\in {bare}", reverse, f"\\{{x \\mid {chain}\\}}", f"\\{{x : {chain} \\}}")
        )
    )


@ANSWERS
def rays(rng: Random, equal: bool) -> Drawn:
    """`x > 3`, `(3, \\infty)`, `-x < -3`."""
    value, closed, up = Fraction(whole(rng)), rng.random() < 0.5, rng.random() < 0.5
    gold = _ray(rng, value, closed, up, plain=True)
    if not equal:
        value, closed, up = rng.choice(
            ((value + 1, closed, up), (value, not closed, up), (value, closed, not up), (-value, closed, up))
        )
    return gold, _ray(rng, value, closed, up)


def _ray(rng: Random, value: Fraction, closed: bool, up: bool, plain: bool = False) -> str:
    sign, back = (
        (("\\ge", "\\le") if closed else (">", "<")) if up else (("\\le", "\\ge") if closed else ("<", ">"))
    )
    infinity = rng.choice(("\\infty", "+\\infty", "∞")) if up else rng.choice(("-\\infty", "-∞"))
    inside = f"{value}, {infinity}" if up else f"{infinity}, {value}"
    ends = ("[" if closed and up else "(") + ("]" if closed and not up else ")")
    bare = brackets(rng, inside, ends)
    return (
        bare
        if plain
        else rng.choice(
            (
                bare,
                f"x {sign} {value}",
                f"{value} {back} x",
                f"-x {back} {-value}",
                f"x \\in {bare}",
                f"x{sign}{value}" if sign in "<>" else bare,
            )
        )
    )


@ANSWERS
def linear_inequalities(rng: Random, equal: bool) -> Drawn:
    """`2x + 1 > 5` and `x > 2`; `|x - 2| < 3` and `(-1, 5)`."""
    middle, radius, slope, added = whole(rng), rng.randint(1, 9), rng.choice((-3, -2, 2, 3)), whole(rng)
    low, high = middle - radius, middle + radius
    le, ends, outer = rng.choice((("<", "()", "()"), ("\\le", "[]", "[]")))
    inside, sides = f"{ends[0]}{low}, {high}{ends[1]}", sorted((slope * low + added, slope * high + added))
    pairs = (
        (inside, f"|x{-middle:+d}| {le} {radius}"),
        (inside, f"{sides[0]} {le} {slope}x{added:+d} {le} {sides[1]}"),
        (f"x {le} {low}", f"{abs(slope)}x{added:+d} {le} {abs(slope) * low + added}"),
        (
            f"(-\\infty, {low}{outer[1]} \\cup {outer[0]}{high}, \\infty)",
            f"|x{-middle:+d}| {'>' if le == '<' else '>='} {radius}",
        ),
    )
    gold, text = rng.choice(pairs)
    return (gold, text) if equal else (gold.replace(str(low), str(low - 1)), text)


@ANSWERS
def unions(rng: Random, equal: bool) -> Drawn:
    """Intervals in any order, as inequalities with `or`, or as the reals without some numbers."""
    a = whole(rng, -12, 5)
    b = a + rng.randint(1, 9)
    closed = rng.random() < 0.5
    parts = [f"(-\\infty,{a}" + ("]" if closed else ")"), ("[" if closed else "(") + f"{b},\\infty)"]
    gold = " \\cup ".join(parts)
    le, ge = ("\\le", "\\ge") if closed else ("<", ">")
    if not equal:
        a, b, le, ge = rng.choice(
            (
                (a - 1, b, le, ge),
                (a, b + 1, le, ge),
                (a, b, {"<": "\\le"}.get(le, "<"), {">": "\\ge"}.get(ge, ">")),
            )
        )
    parts = [
        f"(-\\infty,{a}" + ("]" if le == "\\le" else ")"),
        ("[" if ge == "\\ge" else "(") + f"{b},\\infty)",
    ]
    if rng.random() < 0.25 and equal:
        return _holes(rng, a, b)
    word = rng.choice(("\\text{ or }", " or ", " \\text{ or } "))
    inner = ("(" if le == "\\le" else "[") + f"{a},{b}" + (")" if ge == "\\ge" else "]")
    return gold, rng.choice(
        (
            " \\cup ".join(parts[::-1]),
            "\\cup".join(parts),
            f"x {le} {a}{word}x {ge} {b}",
            f"x {ge} {b}{word}x {le} {a}",
            f"x \\in {parts[0]} \\cup {parts[1]}",
            f"\\mathbb{{R}} \\setminus {inner}",
            parts[0] + " U " + parts[1],
            f"{parts[0]} ∪ {parts[1]}",
        )
    )


def _holes(rng: Random, a: int, b: int) -> Drawn:
    gold = f"(-\\infty,{a})\\cup({a},{b})\\cup({b},\\infty)"
    return gold, rng.choice(
        (
            f"\\mathbb{{R}}\\setminus\\{{{b},{a}\\}}",
            f"\\mathbb{{R}} \\backslash \\{{{a}, {b}\\}}",
            f"x \\neq {a} \\text{{ and }} x \\neq {b}",
            f"\\mathbb{{R}} - \\{{{a}, {b}\\}}",
            f"({b},\\infty)\\cup({a},{b})\\cup(-\\infty,{a})",
        )
    )


@ANSWERS
def set_algebra(rng: Random, equal: bool) -> Drawn:
    """`\\{1,3\\} \\cup \\{2,4\\}`, `[1,4] \\cap (2,6)`, `\\{1,2,3\\} \\setminus \\{2\\}`."""
    if rng.random() < 0.4:
        return _interval_algebra(rng, equal)
    one, other = (
        set(rng.sample(range(-5, 15), rng.randint(2, 5))),
        set(rng.sample(range(-5, 15), rng.randint(2, 4))),
    )
    sign, found = rng.choice((("\\cup", one | other), ("\\cap", one & other), ("\\setminus", one - other)))
    result = sorted(found)
    if not equal:
        result = sorted(found ^ {rng.choice(range(-5, 15))})
    written = _set(rng, result) if result else rng.choice(("\\emptyset", "\\varnothing", "\\{\\}"))
    made = f"{_set(rng, sorted(one))} {sign} {_set(rng, sorted(other))}"
    return (made, written) if rng.random() < 0.5 else (written, made)


def _set(rng: Random, members: list[int]) -> str:
    return brackets(rng, listed(rng, shuffled(rng, [str(member) for member in members])), "{}")


def _interval_algebra(rng: Random, equal: bool) -> Drawn:
    start = rng.randint(1, 5)
    a, b, c, d = (start + step for step in (0, rng.randint(1, 4), 5, 9))
    made, right, wrong = rng.choice(
        (
            (f"[{a},{c}] \\cap ({b},{d})", f"({b},{c}]", f"[{b},{c}]"),
            (f"({a},{c}) \\cup [{b},{d}]", f"({a},{d}]", f"({a},{d})"),
            (f"[{a},{b}] \\cup ({b},{d}]", f"[{a},{d}]", f"[{a},{d})"),
            (f"[{a},{d}] \\setminus ({b},{c})", f"[{a},{b}] \\cup [{c},{d}]", f"[{a},{b}) \\cup [{c},{d}]"),
            (f"({a},{d}) \\setminus \\{{{b}\\}}", f"({b},{d}) \\cup ({a},{b})", f"({a},{d})"),
            (f"[{a},{b}) \\cup \\{{{b}\\}}", f"[{a},{b}]", f"[{a},{b})"),
        )
    )
    return (made, right if equal else wrong) if rng.random() < 0.5 else (right if equal else wrong, made)


# Lists


@ANSWERS
def solutions(rng: Random, equal: bool) -> Drawn:
    """Two or more numbers in any order: `3, -2`, `-2 or 3`, `\\{-2, 3\\}`, `x = 3, x = -2`."""
    values = [
        Fraction(n) for n in sorted(rng.sample([n for n in range(-15, 20) if n], rng.choice((2, 2, 2, 3))))
    ]
    gold = listed(rng, [str(v) for v in values])
    if not equal:
        values = rng.choice(
            ([*values[:-1], values[-1] + 1], values[:-1], [*values, values[-1] + 3], [-v for v in values])
        )
        if sorted(values) == [Fraction(v) for v in gold.replace("\\", "").split(",")]:
            values = values[:-1]
    order = [number(rng, v) for v in (rng.sample(values, len(values)) if len(values) == 2 else values)]
    return gold, rng.choice(
        (
            listed(rng, order),
            joined(rng, order),
            brackets(rng, listed(rng, order), "{}"),
            "x = " + joined(rng, order),
            joined(rng, [f"x={v}" for v in order]),
            "x \\in " + brackets(rng, listed(rng, order), "{}"),
            "; ".join(order),
        )
    )


@ANSWERS
def all_roots(rng: Random, equal: bool) -> Asked:
    """Three or more roots in another order: the problem's words decide."""
    values = rng.sample([n for n in range(-15, 20) if n], rng.randint(3, 5))
    gold = ", ".join(map(str, values))
    order = shuffled(rng, gold.split(", "))
    question = rng.choice(
        (
            "Find all values of $x$ such that the expression is zero.",
            "What are the roots of the polynomial?",
            "List all the solutions.",
            "Find the zeros of $f(x)$. Enter them separated by commas.",
            "Solve for $x$. Give all real solutions.",
            "Determine all integers with this property.",
        )
    )
    if equal:
        return (
            gold,
            rng.choice((listed(rng, order), "x = " + listed(rng, order), joined(rng, order))),
            question,
        )
    ordered = rng.choice(
        (
            "List the numbers in increasing order.",
            "Arrange the numbers from least to greatest.",
            "Find $a$, $b$ and $c$, respectively.",
        )
    )
    wrong = listed(rng, [*order[:-1], str(int(order[-1]) + 1)])
    return rng.choice(
        (
            (", ".join(map(str, sorted(values))), listed(rng, _unsorted(rng, values)), ordered),
            (gold, wrong, question),
        )
    )


def _unsorted(rng: Random, values: list[int]) -> list[str]:
    found = [str(v) for v in values]
    while found == [str(v) for v in sorted(values)]:
        rng.shuffle(found)
    return found


@ANSWERS
def tuples(rng: Random, equal: bool) -> Drawn:
    """`(1, 1/2)`, `(1; 0.5)`, `\\left(1, \\tfrac12\\right)`."""
    values = [rng.choice((Fraction(whole(rng)), rational(rng))) for _ in range(rng.choice((2, 2, 3)))]
    gold = brackets(rng, listed(rng, [number(rng, v) for v in values]))
    if not equal:
        changed = [*values[:-1], another(rng, values[-1])]
        values = rng.choice(
            (values[::-1] if values != values[::-1] else changed, changed, [*values, Fraction(1)])
        )
    return gold, brackets(
        rng, listed(rng, [number(rng, v) for v in values], rng.choice((", ", ",\\,", ", ", "; ", " ; ")))
    )


@ANSWERS
def lists_of_tuples(rng: Random, equal: bool) -> Drawn:
    """The solutions of a system, in any order: `(1,2), (3,4)`, `x=1, y=2 \\text{ or } x=3, y=4`."""
    pairs = [(whole(rng), whole(rng))]
    while len(pairs) < rng.choice((2, 2, 3)):
        pair = (whole(rng), whole(rng))
        pairs += [pair] if pair not in pairs else []
    gold = listed(rng, [brackets(rng, f"{a},{b}") for a, b in pairs], ", ")
    if not equal:
        a, b = pairs[-1]
        swapped = [(b, a) for a, b in pairs]
        other = [*pairs[:-1], (a + 1, b)]
        pairs = rng.choice((swapped if set(swapped) != set(pairs) else other, other, pairs[:-1]))
    rng.shuffle(pairs)
    points = [brackets(rng, rng.choice((f"{a},{b}", f"{a}; {b}", f"{a}, {b}"))) for a, b in pairs]
    equations = [rng.choice((f"x={a}, y={b}", f"y={b}, x={a}")) for a, b in pairs]
    word = rng.choice(("; ", "\\text{ or }", "\\text{ and }", " or "))
    return gold, rng.choice(
        (
            listed(rng, points, ", "),
            joined(rng, points),
            brackets(rng, listed(rng, points, ", "), "{}"),
            word.join(equations),
            "; ".join(points),
            "(x,y) = " + joined(rng, points),
            listed(rng, [f"(x,y)={point}" for point in points], ", "),
        )
    )


@ANSWERS
def several_equations(rng: Random, equal: bool) -> Drawn:
    """`x = 3, y = 2` by name, in any order: not `x = 2, y = 3`."""
    names = list(rng.choice(("xy", "ab", "pq", "mn", "abc", "xyz")))
    values = dict(zip(names, rng.sample([n for n in range(-9, 20) if n], len(names)), strict=True))
    gold = listed(rng, [f"{name} = {values[name]}" for name in names])
    if not equal:
        first, second = names[:2]
        values = rng.choice(
            (values | {first: values[second], second: values[first]}, values | {first: values[first] + 1})
        )
    order = rng.sample(names, len(names))
    inside = ", ".join(str(values[name]) for name in names)
    texts = [f"{name}={number(rng, values[name])}" for name in order]
    return gold, rng.choice(
        (
            listed(rng, texts),
            joined(rng, texts),
            f"({inside})",
            f"({','.join(names)}) = ({inside})",
            "; ".join(texts),
            listed(rng, texts),
            "\\begin{cases}" + " \\\\ ".join(texts) + "\\end{cases}",
        )
    )


@ANSWERS
def numbered_roots(rng: Random, equal: bool) -> Drawn:
    """`y_1 = 2, y_2 = -3` and `-3, 2`."""
    letter, (a, b) = rng.choice("xyzr"), rng.sample([n for n in range(-9, 20) if n], 2)
    gold = rng.choice(
        (
            f"{letter}_1 = {a}, {letter}_2 = {b}",
            f"{letter}_{{1}}={a},{letter}_{{2}}={b}",
            f"{letter}_1={a} \\text{{ and }} {letter}_2={b}",
        )
    )
    if not equal:
        a, b = rng.choice(
            ((a + 1, b) if a + 1 != b else (a + 2, b), (a, -b), (-a, -b) if a != -b else (a, b + 1))
        )
    return gold, rng.choice(
        (
            f"{a}, {b}",
            f"{b}, {a}",
            f"{letter}_1={a}, {letter}_2={b}",
            f"{letter} = {b} \\text{{ or }} {letter} = {a}",
            f"\\{{{a}, {b}\\}}",
        )
    )


@ANSWERS
def both_signs(rng: Random, equal: bool) -> Drawn:
    """`2 \\pm \\sqrt{3}` and both values."""
    a, n, k = whole(rng), rng.choice((2, 3, 5, 7, 11)), rng.choice((1, 1, 2, 3))
    surd = f"\\sqrt{{{n}}}" if k == 1 else f"{k}\\sqrt{{{n}}}"
    gold = rng.choice((f"{a} \\pm {surd}", f"{a}\\pm{surd}"))
    if not equal:
        a, surd = rng.choice(((-a, surd), (a, f"\\sqrt{{{n + 4}}}"), (a + 1, surd)))
    return gold, rng.choice(
        (
            f"{a} + {surd}, {a} - {surd}",
            f"{a}-{surd} \\text{{ or }} {a}+{surd}",
            f"\\{{{a}-{surd}, {a}+{surd}\\}}",
            f"x = {a} \\pm {surd}",
            f"x={a}+{surd}, x={a}-{surd}",
            f"{surd}+{a} \\text{{ and }} -{surd}+{a}",
            f"{a} ± {surd}",
        )
    )


@ANSWERS
def matrices(rng: Random, equal: bool) -> Drawn:
    """`pmatrix`, `bmatrix`, `array`; columns as tuples."""
    rows, columns = rng.choice(((2, 2), (2, 1), (3, 1), (2, 3)))
    cells = [
        [Fraction(whole(rng)) if rng.random() < 0.7 else rational(rng) for _ in range(columns)]
        for _ in range(rows)
    ]
    gold = _matrix(rng, cells)
    if not equal:
        cells[-1][-1] = another(rng, cells[-1][-1])
    return gold, _matrix(rng, cells)


def _matrix(rng: Random, cells: list[list[Fraction]]) -> str:
    rows = rng.choice((" \\\\ ", "\\\\")).join(" & ".join(number(rng, cell) for cell in row) for row in cells)
    if rng.random() < 0.15:
        return f"\\left(\\begin{{array}}{{{'c' * len(cells[0])}}} {rows} \\end{{array}}\\right)"
    name = rng.choice(("pmatrix", "bmatrix", "pmatrix"))
    return f"\\begin{{{name}}}{rows}\\end{{{name}}}"


@ANSWERS
def ratios(rng: Random, equal: bool) -> Drawn:
    """`7:32`, `14:64`, `7 : 32`, `7/32`."""
    a, b, k = rng.randint(1, 20), rng.randint(2, 35), rng.randint(2, 5)
    if a == b:
        b += 1
    right = (f"{a} : {b}", f"{k * a}:{k * b}", f"\\frac{{{a}}}{{{b}}}", f"{a}\\colon {b}", f"{a}/{b}")
    return f"{a}:{b}", rng.choice(
        right if equal else (f"{b}:{a}", f"{a}:{b + 1}", f"{a + b}:{b}", f"{b}/{a}")
    )


# Words, units and dress


_WORDS = (
    "Evelyn",
    "odd",
    "even",
    "Tuesday",
    "red",
    "True",
    "No",
    "ellipse",
    "parabola",
    "Yes",
    "False",
    "north",
    "hyperbola",
    "neither",
    "Friday",
    "blue",
)


@ANSWERS
def words(rng: Random, equal: bool) -> Drawn:
    """`\\text{Evelyn}`, `evelyn`, `**Evelyn**`."""
    word, other = rng.sample(_WORDS, 2)
    gold = rng.choice((f"\\text{{{word}}}", word, f"\\mbox{{{word}}}"))
    text = word if equal else other
    return gold, rng.choice(
        (
            text,
            text.lower(),
            text.upper(),
            f"\\text{{{text}}}",
            f"\\textbf{{{text}}}",
            f"{text}.",
            f"**{text}**",
            f'"{text}"',
            f"\\mathrm{{{text}}}",
            f"\\text{{ {text} }}",
        )
    )


@ANSWERS
def phrases(rng: Random, equal: bool) -> Drawn:
    """What words say: `all real numbers`, `seven`, `3 to 4`, `none`."""
    a, b = rng.sample(range(2, 13), 2)
    names = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    gold, right, wrong = rng.choice(
        (
            ("\\mathbb{R}", "all real numbers", "no solution"),
            ("(-\\infty, \\infty)", "\\text{all real numbers}", f"all real numbers except {a}"),
            (
                f"\\mathbb{{R}} \\setminus \\{{{a}\\}}",
                f"all real numbers except {a}",
                f"all real numbers except {b}",
            ),
            (str(a), names[a], names[b]),
            (f"\\text{{{names[a]}}}", str(a), str(b)),
            (f"{a}:{b}", f"{a} to {b}", f"{b} to {a}"),
            ("\\emptyset", "no solution", "all real numbers"),
            ("\\text{Yes}", "Yes, it is.", "No, it is not."),
            (f"\\text{{(B)}} {a}", f"B. {a}", f"C. {a}"),
            (f"\\binom{{{a + 9}}}{{2}}", f"C({a + 9}, 2)", f"C({a + 10}, 2)"),
        )
    )
    return gold, right if equal else wrong


@ANSWERS
def choices(rng: Random, equal: bool) -> Drawn:
    """`(B)`, `B`, `\\text{(B)}`, `B.`."""
    letter, other = rng.sample("ABCDE", 2)
    gold = rng.choice(
        (f"\\text{{({letter})}}", letter, f"({letter})", f"\\text{{{letter}}}", f"\\textbf{{({letter})}}")
    )
    text = letter if equal else other
    return gold, rng.choice(
        (
            text,
            f"({text})",
            f"{text}.",
            f"\\text{{{text}}}",
            f"\\textbf{{({text})}}",
            f"**{text}**",
            f"({text}) {rng.randint(2, 40)}",
            f"{text})",
            f"\\mathrm{{({text})}}",
            f"`{text}`",
        )
    )


_UNITS = (
    ("cm", ("\\text{ cm}", " cm", "\\ \\text{cm}", "\\,\\mathrm{cm}", " centimeters")),
    ("m", ("\\text{ m}", " meters", "\\ \\mathrm{m}")),
    ("degrees", ("^\\circ", "^{\\circ}", "°", "\\text{ degrees}", " degrees")),
    ("dollars", (" dollars", "\\text{ dollars}")),
    ("square units", ("\\text{ square units}", " square units", "\\text{ units}^2")),
    ("mph", ("\\text{ miles per hour}", " miles per hour")),
    ("hours", ("\\text{ hours}", " hours", "\\text{ hr}")),
    ("days", ("\\text{ days}", " days")),
    ("cm^2", ("\\text{ cm}^2", " cm^2", "\\text{ square centimeters}")),
)


@ANSWERS
def units(rng: Random, equal: bool) -> Drawn:
    """A unit may be left out or written in another way; another unit or number is wrong."""
    one: tuple[str, ...]
    other: tuple[str, ...]
    _, one = rng.choice(_UNITS)
    _, other = rng.choice([unit for unit in _UNITS if unit[1] != one and "units" not in unit[0]])
    if "\\text{ square units}" in one and not equal:  # units without a name may be any
        one, other = other, one
    if "\\text{ square units}" in other:
        other = ("\\text{ gallons}",)
    value = rng.randint(2, 180)
    gold = f"{value}{rng.choice(one)}"
    if equal:
        return gold, rng.choice(
            (
                f"{value}{rng.choice(one)}",
                f"{value}{rng.choice(one)}",
                str(value),
                f"{value}.0{rng.choice(one)}",
            )
        )
    wrong = value + rng.choice((-1, 1, 10))
    return gold, rng.choice((f"{wrong}{rng.choice(one)}", str(wrong), f"{value}{rng.choice(other)}"))


@ANSWERS
def money_and_percent(rng: Random, equal: bool) -> Drawn:
    """`\\$12.50`, `12.50 dollars`, `1250 cents`; `35\\%`, `35 percent`."""
    cents = rng.randint(101, 9999)
    wrong = cents + rng.choice((-1, 1, 100))
    if rng.random() < 0.5:
        shown = decimal(Fraction(cents if equal else wrong, 100), 2)
        return f"\\${decimal(Fraction(cents, 100), 2)}", rng.choice(
            (
                shown,
                f"\\${shown}",
                f"${shown}",
                f"{shown} dollars",
                f"\\$ {shown}",
            )
        )
    share = cents % 99 + 1
    other = share if equal else share + rng.choice((-1, 1, 2)) or 7
    return f"{share}\\%", rng.choice(
        (
            f"{other}\\%",
            f"{other}%",
            f"{other} percent",
            f"{other} \\%",
            str(other),
            f"{other}\\text{{ percent}}",
        )
    )


@ANSWERS
def doubled_backslashes(rng: Random, equal: bool) -> Drawn:
    """An answer from a quoted string: `\\\\frac{1}{2}`."""
    gold, text = _any(rng, equal)
    return gold, text.replace("\\", "\\\\\\\\" if rng.random() < 0.2 else "\\\\")


@ANSWERS
def decoration(rng: Random, equal: bool) -> Drawn:
    """Backticks, quotes, underscores, bold, boxes, colours."""
    gold, text = _any(rng, equal)
    return gold, decorated(rng, text, rng.choice((1, 1, 2)))


@ANSWERS
def sentences(rng: Random, equal: bool) -> Drawn:
    """A sentence where an answer should be."""
    value = rational(rng)
    text = number(rng, value if equal else another(rng, value))
    frames = (
        "The answer is ${}$.",
        "The final answer is {}.",
        "Answer: {}",
        "**Answer:** {}",
        "answer = {}",
        "Final Answer: ${}$",
        "Therefore, the answer is \\({}\\).",
        "So we get \\boxed{{{}}}.",
        "The answer is $\\boxed{{{}}}$.",
        "The value is ${}$",
        "It is equal to ${}$.",
    )
    return number(rng, value), rng.choice(frames).format(text)


@ANSWERS
def unicode_signs(rng: Random, equal: bool) -> Drawn:
    """`2√3`, `π/2`, `x² − 1`, `½`, `3 × 4`."""
    n, k = rng.choice((2, 3, 5, 7)), rng.randint(2, 9)
    gold, right, wrong = rng.choice(
        (
            (f"{k}\\sqrt{{{n}}}", f"{k}√{n}", f"{k}√{n + 4}"),
            (f"\\frac{{\\pi}}{{{k}}}", f"π/{k}", f"{k}π"),
            (f"x^2-{k}", f"x² − {k}", f"x² + {k}"),
            (f"{k}\\pi", f"{k}π", f"{k}π²"),
            (f"-{k}", f"−{k}", f"{k}"),
            (f"{k}.5", f"{k}½", f"{k}⅓"),
            (f"x\\ge {k}", f"x ≥ {k}", f"x ≤ {k}"),
            (f"{k}^\\circ", f"{k}°", f"{k + 1}°"),
            (f"{k}\\cdot 10^{{3}}", f"{k} × 10³", f"{k} × 10²"),
            (f"[{k},\\infty)", f"[{k}, ∞)", f"({k}, ∞)"),
        )
    )
    return gold, right if equal else wrong


_PLAIN = (
    "fractions and decimals",
    "roots of numbers",
    "polynomials",
    "tuples",
    "intervals",
    "complex numbers",
    "matrices",
    "lists of tuples",
    "trigonometry",
)


def _any(rng: Random, equal: bool) -> Drawn:
    """A pair of one of the plain kinds."""
    gold, text, *_ = ANSWERS.draws[rng.choice(_PLAIN)](rng, equal)
    return gold, text
