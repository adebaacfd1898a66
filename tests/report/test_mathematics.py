"""Formulas become MathML; nothing else in a model's text becomes markup."""

from __future__ import annotations

import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.report.mathematics import _ATTRIBUTES, _ELEMENTS, rendered

HOSTILE = [
    "<script>alert(1)</script>",
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\style{background:url(http://x)}{x}$",
    r"$\class{browser}{x}$",
    r"$\color{red;background:url(x)}x$",
    r"$\verb|<b>|$",
    r"$x\unicode{x3c}script>$",
    r"$\newcommand{\a}{\b\b}\newcommand{\b}{\c\c}\a$",
    r"$\def\a{\a\a}\a$",
    "$" + "{" * 1_000 + "$",
    "$" + r"\frac" * 300 + "$",
    "$" + r"\left(" * 200 + "$",
    r"\(" * 20_000,
    "$" * 20_001,
    "$a" * 20_000,
]


class Elements(HTMLParser):
    """Every element and attribute of a fragment, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def check_harmless(text: str) -> None:
    found = Elements(str(rendered(text)))
    assert found.tags <= {*_ELEMENTS, "code"}
    assert found.attributes <= {*_ATTRIBUTES, "class"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_gives_harmless_elements(text: str) -> None:
    check_harmless(text)


@given(st.text("$\\{}<>&\"'()[]^_ abfrctex=:;0|", max_size=60))
def test_any_text_gives_harmless_elements(text: str) -> None:
    check_harmless(text)


@given(st.text("<>&\"' ab\n", max_size=40))
def test_text_without_formulas_stays_as_it_is(text: str) -> None:
    assert Elements(str(rendered(text))).text == text.replace("\r", "\n")


def test_formulas_become_mathml() -> None:
    found = str(rendered(r"So $\frac{1}{2} < x$ costs \$5, \[y^2\] and \(z\)."))
    assert found.count("<math") == 3 and "$5" in found
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in found and "&lt;" in found
    assert '<math display="block">' in found


def test_aligned_equations_need_no_dollar_signs() -> None:
    found = str(
        rendered(r"We get \begin{align*}x&=\$1\\y&=2\end{align*} and \begin{align*}z&=3\end{align*}.")
    )
    assert found.count('<math display="block">') == 2 and found.count("<mtr>") == 3
    assert Elements(found).text.endswith(".") and "begin" not in found


def test_boxes_are_drawn_by_the_page() -> None:
    assert '<mrow class="boxed"><mrow><mn>7</mn></mrow></mrow>' in str(rendered(r"$\boxed{7}$"))


@pytest.mark.parametrize(
    "text", [r"$x^1^2$", r"$\newcommand{\x}{y}\x$", "$" + "{" * 50 + "x" + "}" * 50 + "$"]
)
def test_what_cannot_be_converted_is_shown_as_written(text: str) -> None:
    found = Elements(str(rendered(text)))
    assert found.tags == {"code"} and found.text == text


def test_all_of_math_is_drawn(data_dir: Path) -> None:
    """12,500 problems and solutions; few formulas stay LaTeX, and they are counted."""
    formulas = left = 0
    for name in ("math_train", "math_test"):
        with gzip.open(data_dir / "math" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in list(lines)[::10]:
                record = json.loads(line)
                found = str(rendered(record["problem"]) + rendered(record["solution"]))
                formulas += found.count("<math")
                left += found.count("<code>")
    assert formulas > 10_000
    assert left < 0.002 * formulas
