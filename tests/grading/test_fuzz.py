r"""Properties of the grader on made-up answers.

Three kinds of text: any characters, LaTeX tokens in any order, and expressions with a known value.
An expression is a tree. Its value is exact, in Q(sqrt 2, sqrt 3, i) with numbers for x, y and pi.
Different spellings of a tree (rearranged, `\frac` or `/`, decorated) must be equal; two trees with
different values must be different.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

import pytest
from graded_texts import grades_of, verdicts_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from e2h_pipeline.grading.graders import Grader, Verdict, grader

MODE = "math"
EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED


def fuzz(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same examples on every run; to search for new ones, set a seed by hand."""
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=quiet)


@pytest.fixture(scope="module")
def judge() -> Iterator[Grader]:
    with grader(MODE, workers=2, cpu_seconds=0.3) as opened:
        yield opened


# ---- text that means little -----------------------------------------------------------------------------

WORDS = r"""
    \frac \dfrac \tfrac \sqrt \left \right \text \mathrm \pm \cdot \times \div \cup \cap \in \infty \pi \log \sin \le
    \ge \neq \begin{pmatrix} \end{pmatrix} \\ & \{ \} \% \$ \, \; \! \circ \boxed \binom { } ( ) [ ] ^ _ + - * / = < >
    , . : ; ! | ' $ % 0 1 2 3 7 10 12 0.5 .25 1,000 x y n a i e and or x= ^{\circ} ^\circ _{5} _8 ^2 ^{-1} \text{or}
    \text{(A)} ² π √ − ½ ° ∞ × ٣ ５
    \setminus \mid \choose \mathbb{R} \mathbb{Z} \dots ...
    1.234567 0.1666... 000 x_1= f(x)= y= \sin(x)= \boxed{} \\\\ \text{and}
    **7** `7` "7" </answer> all real numbers except three to _7_ |x-2|< \color{red} C(5,2) [[1,2],[3,4]] ∪
"""
TOKENS = (*WORDS.split(), r"\text{ cm}", " ", "\n")

anything = st.text(st.characters(), max_size=40)
soup = st.lists(st.sampled_from(TOKENS), max_size=14).flatmap(
    lambda tokens: st.sampled_from(("", " ")).map(lambda space: space.join(tokens))
)
digits = st.text(alphabet="0123456789xy+-*/^(){}\\frac sqrt,.$!%=:", max_size=30)


@fuzz(300)
@given(st.one_of(anything, soup, digits), st.one_of(anything, soup, digits))
def test_any_text_is_graded(judge: Grader, one: str, other: str) -> None:
    same, there, back = grades_of(judge, [(one, one), (one, other), (other, one)])
    assert same.verdict is EQUAL
    assert there.verdict is back.verdict or "rounded" in (there.tier, back.tier)


@fuzz(150)
@given(st.lists(st.one_of(st.none(), soup, digits, anything), max_size=8), st.randoms())
def test_groups_do_not_depend_on_order(judge: Grader, answers: list[str | None], rng: random.Random) -> None:
    answers = answers + answers[: len(answers) // 2]
    shuffled = rng.sample(answers, len(answers))
    one, other = judge.classes([answers, shuffled])
    assert_numbered(answers, one)
    assert grouped(answers, one) == grouped(shuffled, other)


def assert_numbered(answers: Sequence[str | None], classes: Sequence[int | None]) -> None:
    """Check that no answer has no class, that classes are numbered by first appearance, and that a
    text has one class."""
    assert [number is None for number in classes] == [answer is None for answer in answers]
    numbers = [number for number in classes if number is not None]
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers))))
    assert len({pair for pair in zip(answers, classes, strict=True) if pair[0] is not None}) == len(
        {answer for answer in answers if answer is not None}
    )


def grouped(answers: Sequence[str | None], classes: Sequence[int | None]) -> set[frozenset[str | None]]:
    groups: dict[int | None, set[str | None]] = {}
    for answer, number in zip(answers, classes, strict=True):
        groups.setdefault(number, set()).add(answer)
    return {frozenset(group) for group in groups.values()}


# ---- expressions with known values ----------------------------------------------------------------------

Tree: TypeAlias = "int | str | tuple[str, Tree, Tree]"
"""A whole number, a symbol (x y pi i r2 r3), or an operation on two trees."""
Number: TypeAlias = tuple[Fraction, ...]
"""Coefficients of the products of sqrt 2, sqrt 3 and i, by three bits."""

SQUARES = (2, 3, -1)
ZERO: Number = (Fraction(0),) * 8
POINTS = (
    {"x": Fraction(17, 5), "y": Fraction(-29, 7), "pi": Fraction(311, 99)},
    {"x": Fraction(-113, 11), "y": Fraction(41, 3), "pi": Fraction(22, 71)},
)
SYMBOLS = {"x": "x", "y": "y", "pi": "\\pi", "i": "i", "r2": "\\sqrt{2}", "r3": "\\sqrt{3}"}


def rational(value: Fraction | int) -> Number:
    return (Fraction(value), *ZERO[1:])


def unit(place: int) -> Number:
    return tuple(Fraction(k == 1 << place) for k in range(8))


def product(a: Number, b: Number) -> Number:
    total = list(ZERO)
    for j, p in enumerate(a):
        for k, q in enumerate(b):
            if p and q:
                both = [square for bit, square in enumerate(SQUARES) if j & k & 1 << bit]
                total[j ^ k] += (
                    p * q * (both[0] if both else 1) * (both[1] if both[1:] else 1) * (-1 if both[2:] else 1)
                )
    return tuple(total)


def value(tree: Tree, point: dict[str, Fraction]) -> Number:
    """The value at a point; ZeroDivisionError if it has no value that can be computed."""
    if isinstance(tree, int):
        return rational(tree)
    if isinstance(tree, str):
        places = {"r2": 0, "r3": 1, "i": 2}
        return unit(places[tree]) if tree in places else rational(point[tree])
    operation, one, other = tree
    a, b = value(one, point), value(other, point)
    if operation == "+":
        return tuple(p + q for p, q in zip(a, b, strict=True))
    if operation == "-":
        return tuple(p - q for p, q in zip(a, b, strict=True))
    if operation == "*":
        return product(a, b)
    if operation == "/":
        if any(b[1:]):
            raise ZeroDivisionError("not a rational number")
        return tuple(p / b[0] for p in a)
    assert operation == "^" and isinstance(other, int)
    power = rational(1)
    for _ in range(other):
        power = product(power, a)
    return power


def values(tree: Tree) -> tuple[Number, ...] | None:
    try:
        return tuple(value(tree, point) for point in POINTS)
    except ZeroDivisionError:
        return None


def trees(leaves: st.SearchStrategy[Tree], size: int = 6) -> st.SearchStrategy[Tree]:
    def grow(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        return st.one_of(
            st.tuples(st.sampled_from(("+", "-", "*", "/")), inner, inner),
            st.tuples(st.just("^"), inner, st.integers(2, 3)),
        )

    return st.recursive(leaves, grow, max_leaves=size).filter(lambda tree: values(tree) is not None)


whole = st.integers(-12, 30)
arithmetic = trees(whole)
algebra = trees(st.one_of(whole, st.sampled_from(tuple(SYMBOLS))))


class Writer:
    """Writes a tree as LaTeX in one of many ways."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def write(self, tree: Tree) -> str:
        if isinstance(tree, int):
            return self._whole(tree)
        if isinstance(tree, str):
            return self._symbol(tree)
        operation, one, other = self._rearranged(tree)
        return {
            "+": self._sum,
            "-": self._difference,
            "*": self._product,
            "/": self._ratio,
            "^": self._power,
        }[operation](one, other)

    def _rearranged(self, tree: tuple[str, Tree, Tree]) -> tuple[str, Tree, Tree]:
        """The same value by a rule of algebra."""
        operation, one, other = tree
        if operation in "+*" and self.rng.random() < 0.5:
            one, other = other, one
        if operation == "-" and self.rng.random() < 0.3:
            return "+", ("*", -1, other), one
        if operation == "*" and isinstance(other, tuple) and other[0] in "+-" and self.rng.random() < 0.4:
            return other[0], ("*", one, other[1]), ("*", one, other[2])
        if operation == "^" and other == 2 and self.rng.random() < 0.4:
            return "*", one, one
        if operation == "/" and isinstance(one, tuple) and one[0] in "+-" and self.rng.random() < 0.3:
            return one[0], ("/", one[1], other), ("/", one[2], other)
        return operation, one, other

    def _whole(self, number: int) -> str:
        if number >= 0 and self.rng.random() < 0.1:
            return f"{number}.0" if self.rng.random() < 0.5 else str(number)
        return str(number)

    def _symbol(self, name: str) -> str:
        if name in ("r2", "r3") and self.rng.random() < 0.3:
            return f"\\sqrt {name[1]}" if self.rng.random() < 0.5 else f"{name[1]}^{{\\frac{{1}}{{2}}}}"
        if name == "pi" and self.rng.random() < 0.2:
            return "\u03c0"
        return SYMBOLS[name]

    def _sum(self, one: Tree, other: Tree) -> str:
        return f"{self.write(one)}{self._space()}+{self._space()}{self._term(other)}"

    def _difference(self, one: Tree, other: Tree) -> str:
        return f"{self.write(one)}{self._space()}-{self._space()}{self._brackets(other)}"

    def _product(self, one: Tree, other: Tree) -> str:
        sign = self.rng.choice((" \\cdot ", "\\times ", "*", ""))
        return self._brackets(one) + sign + self._brackets(other)

    def _ratio(self, one: Tree, other: Tree) -> str:
        if self.rng.random() < 0.25:
            return f"{self._brackets(one)}/{self._brackets(other)}"
        command = self.rng.choice(("\\frac", "\\dfrac", "\\tfrac"))
        return f"{command}{{{self.write(one)}}}{{{self.write(other)}}}"

    def _power(self, one: Tree, other: Tree) -> str:
        return (
            f"{self._brackets(one)}^{{{other}}}"
            if self.rng.random() < 0.7
            else f"{self._brackets(one)}^{other}"
        )

    def _term(self, tree: Tree) -> str:
        return self._brackets(tree) if isinstance(tree, int) and tree < 0 else self.write(tree)

    def _brackets(self, tree: Tree) -> str:
        inner = self.write(tree)
        return f"\\left({inner}\\right)" if self.rng.random() < 0.3 else f"({inner})"

    def _space(self) -> str:
        return self.rng.choice(("", "", " ", "\\,", "\\ "))


def decorated(text: str, rng: random.Random) -> str:
    """An answer with the decorations that people write."""
    forms = (
        "{}",
        "{}",
        "${}$",
        " {} ",
        "{}.",
        "\\boxed{{{}}}",
        "\\({}\\)",
        "$\\displaystyle {}$",
        "\\left({}\\right)",
    )
    return rng.choice(forms).format(text)


def written(tree: Tree, rng: random.Random) -> str:
    return decorated(Writer(rng).write(tree), rng)


@fuzz(250)
@given(st.one_of(arithmetic, algebra), st.randoms(use_true_random=False))
def test_ways_to_write_an_expression_are_equal(judge: Grader, tree: Tree, rng: random.Random) -> None:
    one, other = written(tree, rng), written(tree, rng)
    assert verdicts_of(judge, [(one, other), (other, one)]) == [EQUAL, EQUAL]


@fuzz(250)
@given(
    st.one_of(st.tuples(arithmetic, arithmetic), st.tuples(algebra, algebra)),
    st.randoms(use_true_random=False),
)
def test_other_values_are_different(judge: Grader, pair: tuple[Tree, Tree], rng: random.Random) -> None:
    for one, other in (pair, (pair[0], with_a_slip(pair[0], rng))):
        known = values(other)
        if known is not None and known != values(one):
            texts = written(one, rng), written(other, rng)
            assert verdicts_of(judge, [texts, texts[::-1]]) == [DIFFERENT, DIFFERENT]


def with_a_slip(tree: Tree, rng: random.Random) -> Tree:
    """The tree with one leaf changed."""
    if isinstance(tree, int):
        return tree + rng.choice((-1, 1))
    if isinstance(tree, str):
        return rng.choice(tuple(SYMBOLS))
    operation, one, other = tree
    if operation == "^" or rng.random() < 0.5:
        return operation, with_a_slip(one, rng), other
    return operation, one, with_a_slip(other, rng)


@fuzz(120)
@given(st.lists(st.one_of(arithmetic, algebra), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_groups_are_values(judge: Grader, ladder: list[Tree], rng: random.Random) -> None:
    """Three spellings of each value, mixed: there are as many groups as values, and pairs agree
    with the groups."""
    answers = [(written(tree, rng), values(tree)) for tree in ladder for _ in range(3)]
    rng.shuffle(answers)
    texts = [text for text, _ in answers]
    found: dict[object, set[int | None]] = {}
    for (_, known), number in zip(answers, judge.classes([texts])[0], strict=True):
        found.setdefault(known, set()).add(number)
    assert all(len(numbers) == 1 for numbers in found.values()), texts
    assert len(set().union(*found.values())) == len(found), texts
    (first, known), *others = answers
    expected = [EQUAL if other == known else DIFFERENT for _, other in others]
    assert verdicts_of(judge, [(first, text) for text, _ in others]) == expected


# ---- numbers in everyday dress --------------------------------------------------------------------------

tenths = st.builds(
    Fraction, st.integers(-99_999, 99_999), st.sampled_from((1, 2, 4, 5, 8, 10, 20, 25, 100, 125))
)
fractions = st.one_of(
    tenths, st.builds(Fraction, st.integers(-500, 500), st.integers(1, 60)), st.integers(0, 10**9)
)


def number_texts(number: Fraction) -> list[str]:
    """Spellings of a rational number; only finite decimals."""
    sign, p, q = "-" if number < 0 else "", abs(number.numerator), number.denominator
    texts = [f"{sign}\\frac{{{p}}}{{{q}}}", f"\\frac{{{number.numerator}}}{{{q}}}", f"{sign}{p}/{q}"]
    texts += [f"{sign}\\dfrac{{{3 * p}}}{{{3 * q}}}", f"{sign}\\left(\\tfrac{{{p}}}{{{q}}}\\right)"]
    if p > q > 1:
        texts.append(f"{sign}{p // q}\\frac{{{p % q}}}{{{q}}}")
        texts.append(f"{sign}{p // q} {p % q}/{q}")
    if 10**9 % q == 0:
        plain = decimal(abs(number))
        texts += [sign + plain, sign + plain + "0" if "." in plain else f"{sign}{plain}.00"]
        texts += [sign + plain.removeprefix("0") if plain.startswith("0.") else sign + plain]
        texts.append(sign + decimal(100 * abs(number)) + "\\%")
    if q == 1 and p >= 1000:
        texts += [f"{sign}{p:,}", f"{sign}{p:,}".replace(",", "{,}"), f"{sign}{p:,}".replace(",", ",\\!")]
    return texts


def decimal(number: Fraction) -> str:
    """A number of at most nine decimals, exactly."""
    whole_part, rest = divmod(int(number * 10**9), 10**9)
    return f"{whole_part}.{rest:09d}".rstrip("0").rstrip(".")


@fuzz(200)
@given(fractions, st.randoms(use_true_random=False))
def test_ways_to_write_a_number_are_equal(judge: Grader, number: Fraction | int, rng: random.Random) -> None:
    texts = number_texts(Fraction(number))
    pairs = [(one, decorated(other, rng)) for one in texts for other in texts]
    assert [pair for pair, v in zip(pairs, verdicts_of(judge, pairs), strict=True) if v is not EQUAL] == []
    assert set(judge.classes([[text for pair in pairs for text in pair]])[0]) == {0}


@fuzz(200)
@given(fractions, fractions, st.randoms(use_true_random=False))
def test_other_numbers_are_different(
    judge: Grader, one: Fraction | int, other: Fraction | int, rng: random.Random
) -> None:
    assume(one != other and one != 100 * other and 100 * one != other)  # a per cent sign may be left out
    pairs = [(a, b) for a in number_texts(Fraction(one)) for b in number_texts(Fraction(other))]
    assert [
        pair for pair, v in zip(pairs, verdicts_of(judge, pairs), strict=True) if v is not DIFFERENT
    ] == []


UNITS = (
    "{}\\text{{ cm}}",
    "{}\\mbox{{ cm}}",
    "{}^\\circ",
    "{}\\%",
    "\\${}",
    "{}\\text{{ degrees}}",
    "x={}",
    "{} \\text{{ miles}}",
)


@fuzz(100)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(UNITS))
def test_a_unit_may_be_left_out(judge: Grader, number: int, other: int, unit_form: str) -> None:
    assume(number != other and 100 * other != number)
    marked = unit_form.format(number)
    assert verdicts_of(judge, [(marked, str(number)), (str(number), marked)]) == [EQUAL, EQUAL]
    assert verdicts_of(judge, [(marked, unit_form.format(other)), (marked, str(other))]) == [DIFFERENT] * 2


# ---- collections ----------------------------------------------------------------------------------------

members = st.lists(arithmetic, min_size=2, max_size=4)
ORDERED = ("({})", "\\left({}\\right)", "$({})$")
UNORDERED = ("\\{{{}\\}}", "\\left\\{{{}\\right\\}}", "$\\{{ {} \\}}$")


@fuzz(100)
@given(members, st.randoms(use_true_random=False))
def test_points_have_an_order(judge: Grader, parts: list[Tree], rng: random.Random) -> None:
    one, other = (rng.choice(ORDERED).format(listed(parts, rng)) for _ in range(2))
    assert verdicts_of(judge, [(one, other), (other, one)]) == [EQUAL, EQUAL]
    backward = parts[::-1]
    if [values(part) for part in parts] != [values(part) for part in backward]:
        assert verdicts_of(judge, [(one, rng.choice(ORDERED).format(listed(backward, rng)))]) == [DIFFERENT]


@fuzz(100)
@given(members, arithmetic, st.randoms(use_true_random=False))
def test_sets_have_none(judge: Grader, parts: list[Tree], extra: Tree, rng: random.Random) -> None:
    one = rng.choice(UNORDERED).format(listed(parts, rng))
    other = rng.choice(UNORDERED).format(listed(rng.sample(parts, len(parts)), rng))
    assert verdicts_of(judge, [(one, other), (other, one)]) == [EQUAL, EQUAL]
    if values(extra) not in [values(part) for part in parts]:
        more = rng.choice(UNORDERED).format(listed([*parts, extra], rng))
        assert verdicts_of(judge, [(one, more), (more, one)]) == [DIFFERENT, DIFFERENT]


@fuzz(100)
@given(arithmetic, arithmetic, st.randoms(use_true_random=False))
def test_ends_of_intervals_matter(judge: Grader, low: Tree, high: Tree, rng: random.Random) -> None:
    below, above = values(low), values(high)
    assume(below is not None and above is not None and below[0][0] < above[0][0])
    texts = [
        f"{opener}{listed([low, high], rng)}{closer}" for opener in "([" for closer in ")]" for _ in range(2)
    ]
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert verdicts_of(judge, [(one, other)]) == [EQUAL if i // 2 == j // 2 else DIFFERENT], (
                one,
                other,
            )


def listed(parts: Sequence[Tree], rng: random.Random) -> str:
    """A list with a comma and a space, because `1,234` might be one number."""
    return ", ".join(Writer(rng).write(part) for part in parts)
