"""The problems in the browser of solutions, and its text for a step."""

from __future__ import annotations

from typing import Any

import pytest

from e2h_pipeline.problems.code.text import TEXT as CODE
from e2h_pipeline.report.levels import LevelNames
from e2h_pipeline.report.solutions_view import solutions_section
from e2h_pipeline.solutions import MARKED, TextFormat


def choice(problem: str, level: int, roles: list[str], right: bool, **more: Any) -> dict[str, Any]:
    return {
        "problem_id": problem,
        "level": level,
        "question": "1+1",
        "gold": "2",
        "roles": roles,
        "sample": 0,
        "completion": "1+1=2\n\n# Answer\n\n2",
        "answer": "2" if right else "9",
        "right": right,
        "votes": 3,
        "weight": 0.754,
        "step_scores": [0.19, 1.0],
        "samples": 4,
        "right_samples": 1,
        **more,
    }


def problem(name: str, level: int, majority: bool, weighted: bool) -> list[dict[str, Any]]:
    if majority == weighted:
        return [choice(name, level, ["majority", "weighted-vote", "best-of-n"], majority)]
    return [
        choice(name, level, ["majority"], majority),
        choice(name, level, ["weighted-vote", "best-of-n"], weighted),
    ]


def test_steps_answers_and_choosers() -> None:
    section = solutions_section(problem("p", 4, False, True), MARKED)
    assert section is not None
    (shown,) = section.problems
    assert (shown.outcome, shown.outcome_name) == ("rescued", "majority wrong, evaluator right")
    first, second = shown.solutions
    assert (first.roles, first.right, second.roles) == (
        "majority vote",
        False,
        "vote weighted by the evaluator, best-of-N",
    )
    assert [(str(s.text), s.score, s.shade) for s in second.steps] == [
        ("1+1=2", "0.19", 0),
        ("Answer: 2", "1.00", 4),
    ]
    assert second.weight == "75"


def test_counts_are_of_all_problems_and_the_sample_takes_levels_in_turn() -> None:
    rows = [row for i in range(60) for row in problem(f"a{i:02}", 1 + i % 2, True, True)]
    rows += problem("b", 5, False, True)
    section = solutions_section(rows, MARKED)
    assert section is not None
    assert section.total == 61
    assert section.levels == ((1, "level 1"), (2, "level 2"), (5, "level 5"))
    assert ("both right", (30, 30, 0), 60) in section.table
    assert ("rescued", "majority wrong, evaluator right", 1) in section.outcomes
    agreed = [p.level for p in section.problems if p.outcome == "agreed"]
    assert (agreed.count(1), agreed.count(2)) == (10, 10)
    # Nothing to show for these; the page says so.
    assert ("5", "agreed") in section.empty and ("all", "lost") in section.empty
    assert ("5", "rescued") not in section.empty and ("all", "all") not in section.empty


def test_the_sample_does_not_depend_on_order() -> None:
    problems = [problem(f"a{i:02}", 1, True, True) for i in range(60)]
    forward, backward = (
        solutions_section([row for rows in order for row in rows], MARKED)
        for order in (problems, problems[::-1])
    )
    assert forward == backward


def test_no_answers_no_section() -> None:
    assert solutions_section([], MARKED) is None


def test_the_domain_names_its_levels_and_writes_its_solutions() -> None:
    text = TextFormat(answer_marker="So:", separator="\n")
    rows = [{**row, "completion": "1+1=2\nSo:\n2"} for row in problem("p", 2, False, True)]
    section = solutions_section(rows, text, LevelNames(("novice", "expert")))
    assert section is not None
    (shown,) = section.problems
    assert (section.levels, shown.level_name) == (((2, "expert"),), "expert")
    assert [str(step.text) for step in shown.solutions[0].steps] == ["1+1=2", "Answer: 2"]


@pytest.mark.parametrize("unknown", [None, 0])
def test_problems_of_unknown_level_are_among_all_alone(unknown: int | None) -> None:
    rows = problem("known", 1, True, True)
    rows += [{**row, "level": unknown} for row in problem("unknown", 1, True, True)]
    section = solutions_section(rows, MARKED)
    assert section is not None
    assert section.levels == ((1, "level 1"),)
    assert ("both right", (1,), 2) in section.table
    assert {p.problem_id: p.level_name for p in section.problems} == {
        "known": "level 1",
        "unknown": "unknown level",
    }


def test_programs_stand_as_they_are_with_what_is_wrong_with_them() -> None:
    """White space, dollar signs and angle brackets are the program's own; its closing fence has the score of the whole."""
    told = {
        "question": "Print  $x$.\n    5",
        "gold": "print('<$x$>')",
        "completion": "```python\nif True:\n    print('$<b>')\n```",
        "answer": "if True:\n    print('$<b>')",
        "step_scores": [0.9, 0.1, 0.2],
        "why": "failed at case 2: wrote '$<b>', not '<$x$>'",
    }
    section = solutions_section(
        [choice("p", 1, ["majority", "weighted-vote", "best-of-n"], False, **told)], CODE
    )
    assert section is not None
    (shown,) = section.problems
    (solution,) = shown.solutions
    assert str(shown.question) == '<code class="verbatim">Print  $x$.\n    5</code>'
    assert str(shown.gold) == '<code class="verbatim">print(&#39;&lt;$x$&gt;&#39;)</code>'
    assert [str(step.text).removeprefix('<code class="verbatim">') for step in solution.steps] == [
        "```python\nif True:</code>",
        "    print(&#39;$&lt;b&gt;&#39;)</code>",
        "```</code>",
    ]
    assert str(solution.answer) == "" and solution.why == told["why"]
