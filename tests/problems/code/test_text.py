"""Programs as solutions: a fenced block, a step per logical line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.problems.code.text import TEXT, answer_of, is_blind, logical_lines, outside_answer_of

LINES = [
    "def f(a,\n      b):",
    '    """Two\n    lines (."""',
    '    s = "#("  # ((',
    "    return a + \\\n        b",
    "print(f(1,\n        2))",
]
PROGRAM = "\n".join([*LINES[:2], "", *LINES[2:4], "", LINES[4]])
PIECES = st.sampled_from(
    [
        "x = 1",
        "\n",
        "\n\n",
        "```",
        "```python",
        "(",
        ")",
        '"""',
        "'",
        "\\",
        "# a",
        "    ",
        "text",
        "\t",
        "é",
        "`",
        " ",
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join)


def test_steps_are_logical_lines() -> None:
    assert logical_lines(PROGRAM) == LINES
    solution = TEXT.parse(TEXT.completion(LINES, PROGRAM))
    assert list(solution.steps) == LINES and solution.answer == PROGRAM
    assert len(solution.spans) == len(LINES) + 1


def test_a_reason_before_the_program_is_a_step() -> None:
    completion = TEXT.completion(["Add them.", *LINES], PROGRAM)
    assert completion.startswith("Add them.\n```python\ndef f") and completion.endswith("\n```")
    assert TEXT.parse(completion).steps == ("Add them.", *LINES)


@pytest.mark.parametrize(
    ("completion", "answer", "outside"),
    [
        ("```python\nx = 1\n```", "x = 1", "x = 1"),
        ("```\nx = 1\n```\n", "x = 1", "x = 1"),
        ("First\n```py\na\n```\nbetter:\n```python3\nb\n```\nDone.", "b", "b"),
        ("```python\nx = 1", None, None),
        ("```python\n\n```", None, None),
        ("x = 1", None, "x = 1"),
        ("", None, None),
        ("a ```python\nx\n```", None, None),
    ],
)
def test_the_answer_is_the_last_block(completion: str, answer: str | None, outside: str | None) -> None:
    assert answer_of(completion, True) == answer
    assert outside_answer_of(completion, True) == outside
    assert answer_of(completion, False) is None and outside_answer_of(completion, False) is None


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_segments_cover_a_completion_in_order(completion: str) -> None:
    solution = TEXT.parse(completion)
    assert len(solution.spans) == len(solution.steps) + (solution.answer is not None)
    at = 0
    for start, end in solution.spans:
        assert at <= start < end
        at = end
    assert at <= len(completion)
    assert all(step.strip() for step in solution.steps)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_solution_that_is_read_can_be_written(program: str) -> None:
    solution = TEXT.parse(TEXT.completion([], program))
    if solution.answer is not None and "```" not in program:
        assert solution.answer == program.strip("\n")
        again = TEXT.parse(TEXT.completion(solution.steps, solution.answer))
        assert (again.steps, again.answer) == (solution.steps, solution.answer)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_steps_do_not_change_as_a_program_grows(program: str) -> None:
    """A search reads a beginning that ends behind a line break; all steps but its last stay."""
    whole = logical_lines(program)
    for place in [i + 1 for i, sign in enumerate(program) if sign == "\n"]:
        begun = logical_lines(program[:place])
        assert begun[:-1] == whole[: max(0, len(begun) - 1)]


@pytest.mark.parametrize(
    ("program", "blind"),
    [
        ("print(4)", True),
        ("print(2 * int(input()))", False),
        ("import sys\nprint(len(sys.stdin.read()))", False),
        ("def f(a, b=2):\n    return [3, 4]", True),
        ("def f(a, b=2):\n    return b", False),
        ("class Solution:\n    def f(self, a: int) -> int:\n        return 3", True),
        ("def g(x):\n    return 1\n\ndef f(*a):\n    return g(a)", False),
        ("def f():\n    return 3", True),
        ("", True),
    ],
)
def test_programs_that_look_at_nothing(program: str, blind: bool) -> None:
    assert is_blind(program) is blind
