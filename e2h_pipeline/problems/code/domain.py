"""Programming problems as a domain: programs, checked by unit tests in a sandbox."""

from __future__ import annotations

from e2h_pipeline.problems.code.text import TEXT, answer_of, is_blind, outside_answer_of
from e2h_pipeline.problems.domain import Domain, Example
from e2h_pipeline.recipe import CodeProblems

CODE = Domain(
    name="code",
    benchmark="CODE",
    options=CodeProblems,
    answer_of=answer_of,
    outside_answer_of=outside_answer_of,
    reader="e2h_pipeline.problems.code.problems:CodeReader",
    text=TEXT,
    is_blind=is_blind,
    example=Example(
        "Read n and n numbers; write the largest.\n\n    3\n    1 7 5",
        (
            "n = int(input())",
            "a = [int(x) for x in input().split()]  # n of them",
            "if n > 0:",
            "    print(max(a))",
        ),
        "n = int(input())\na = [int(x) for x in input().split()]  # n of them\nif n > 0:\n    print(max(a))",
    ),
)
