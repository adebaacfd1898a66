import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems.math.steps import split_sentences, split_steps


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        ("First. Then.\n\nLast.", ("First. Then.", "Last.")),
        ("We add. Then we stop.", ("We add.", "Then we stop.")),
        ("So $x = 3.$ Then $y = 4$. $z$ is 5.", ("So $x = 3.$", "Then $y = 4$.", "$z$ is 5.")),
        ("We have\n\\[x = 3.\\]Hence $\\boxed{3}$.", ("We have\n\\[x = 3.\\]", "Hence $\\boxed{3}$.")),
        ("It is 3.5 or so, i.e. $7/2$.", ("It is 3.5 or so, i.e. $7/2$.",)),
        ("It costs \\$3. It sells for \\$4.", ("It costs \\$3.", "It sells for \\$4.")),
        (
            "See\n\n[asy]\ndraw(a);\n\ndraw(b);\n[/asy]\n\nThe end.",
            ("See", "[asy]\ndraw(a);\n\ndraw(b);\n[/asy]", "The end."),
        ),
        (
            "So\n\\begin{align*}\na &= b. \\\\\n\nC\n\\end{align*}Done.",
            ("So\n\\begin{align*}\na &= b. \\\\\n\nC\n\\end{align*}", "Done."),
        ),
        ("\n\n", ()),
    ],
)
def test_split_by_hand(solution: str, steps: tuple[str, ...]) -> None:
    assert split_steps(solution) == steps


@given(st.text(alphabet="aB.!? \n$\\[]()asy/begin{}", max_size=60))
def test_nothing_is_lost(solution: str) -> None:
    steps = split_steps(solution)
    assert all(step and step == step.strip() for step in steps)
    assert "".join("".join(steps).split()) == "".join(solution.split())


def test_lines_and_their_sentences_are_steps_and_formulas_are_whole() -> None:
    text = "We add.\nThen $a\n+ b = c.$ So $c$ is 3. i.e. it\n\n\\[x.\nY\\]\nDone"
    assert split_sentences(text) == (
        "We add.",
        "Then $a\n+ b = c.$",
        "So $c$ is 3. i.e. it",
        "\\[x.\nY\\]",
        "Done",
    )
