import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.math.shepherd import STEP_TAG, _read, read_shepherd
from e2h_pipeline.problems.records import ProblemError


def line(question: str, steps: list[str], signs: str, task: str = "MATH") -> dict[str, Any]:
    """A line in Math-Shepherd's format."""
    numbered = [f"Step {i}: {step} " for i, step in enumerate(steps, start=1)]
    return {
        "input": question + " " + "\n".join(step + STEP_TAG for step in numbered),
        "label": question + " " + "\n".join(s + sign for s, sign in zip(numbered, signs, strict=True)),
        "task": task,
    }


GOOD = line("What is $1 - 2$?", ["We take $1 - 2$.", "So $-1$. The answer is: -1"], "+-")


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_line_is_a_solution_with_signs_as_ratings(tmp_path: Path) -> None:
    found = read_shepherd(write(tmp_path / "x.jsonl", GOOD, {**GOOD, "task": "GSM8K"}))
    first = found.solutions[0]
    assert (first.file, first.line, first.unique_id, first.level) == ("x.jsonl", 1, None, None)
    assert first.question == "What is $1 - 2$?"
    assert first.steps == ("We take $1 - 2$.", "So $-1$.\n\n# Answer\n\n-1")  # minus signs are not labels
    assert first.ratings == (1, -1)
    assert found.counts == {"records": 2, "task_MATH": 1, "task_GSM8K": 1}


def test_a_bare_answer_is_an_answer_block_and_a_solution_may_have_none(tmp_path: Path) -> None:
    found = read_shepherd(
        write(tmp_path / "x.jsonl", line("q", ["The answer is: 5"], "+"), line("q", ["a", "b"], "++"))
    )
    assert [s.steps for s in found.solutions] == [("# Answer\n\n5",), ("a", "b")]


@pytest.mark.parametrize(
    ("question", "step"),
    [
        ("In Step 1: of a recipe we add 2. What then?", "b"),
        ("Step 1: double it. Step 2: add 3. What is $y$?", "we double"),
        ("Follow these.\nStep 1: double it.\nStep 2: add 3.\nWhat is $y$?", "we double"),
        ("What does the procedure give?", "As in Step 1: of it, we double"),
        ("Step 1: double it. What is $y$?", "By Step 1: it is 4"),
    ],
)
def test_a_question_and_a_step_may_speak_of_steps(tmp_path: Path, question: str, step: str) -> None:
    (solution,) = read_shepherd(write(tmp_path / "x.jsonl", line(question, [step, "c"], "+-"))).solutions
    assert (solution.question, solution.steps) == (question, (step, "c"))


@pytest.mark.parametrize("task", [{}, {"task": None}])
def test_a_line_without_a_task_is_read(tmp_path: Path, task: dict[str, Any]) -> None:
    bare = {name: value for name, value in GOOD.items() if name != "task"} | task
    found = read_shepherd(write(tmp_path / "x.jsonl", bare, GOOD))
    assert len(found.solutions) == 2 and not found.bad_lines
    assert found.counts == {"records": 2, "task_unknown": 1, "task_MATH": 1}


def test_a_solution_without_numbers_is_not_cut_within_its_question(tmp_path: Path) -> None:
    bare = "Step 1: double it. What is $y$? We double.{} Then we add.{}"
    record = {"input": bare.format(STEP_TAG, STEP_TAG), "label": bare.format("+", "-"), "task": "MATH"}
    found = read_shepherd(write(tmp_path / "x.jsonl", record, GOOD))
    (bad,) = found.bad_lines
    assert bad.reason == "no 'Step 1:' between question and solution"
    asked = {name: f"Do this. {text}" for name, text in record.items() if name != "task"}
    (bad,) = read_shepherd(write(tmp_path / "y.jsonl", asked, GOOD)).bad_lines
    assert bad.reason == "step 2 does not begin with 'Step 2:'"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": "q Step 1: a"}, "no step tag ки in 'input'"),
        ({"input": GOOD["input"] + " more"}, "text behind the last step tag: 'more'"),
        ({"label": GOOD["label"] + " more"}, "'label' has text behind its last step"),
        ({"label": GOOD["label"].replace("take", "make")}, "'label' differs from 'input' in step 1"),
        ({"label": GOOD["label"].replace("So", "Is")}, "'label' differs from 'input' in step 2"),
        ({"label": GOOD["input"]}, "step 1 is labelled 'к', not + or -"),
        ({"label": GOOD["label"][:-1]}, "step 2 is labelled '', not + or -"),
        ({"label": None}, "'label' must be str"),
        ({"task": 3}, "'task' must be str"),
        ({"input": "q 1: a ки", "label": "q 1: a +"}, "no 'Step 1:'"),
        ({"input": "Step 1: a ки", "label": "Step 1: a +"}, "no 'Step 1:'"),
        (line("q", ["a", ""], "++"), "step 2 is empty"),
        (line("q", ["a # Answer 4", "b"], "++"), "'# Answer' within a step"),
    ],
)
def test_an_inconsistent_line_is_listed_and_does_not_pass(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    found = read_shepherd(write(tmp_path / "x.jsonl", GOOD, {**GOOD, **change}, GOOD))
    (bad,) = found.bad_lines
    assert (bad.file, bad.line) == ("x.jsonl", 2)
    assert bad.reason.startswith(reason)
    assert [s.line for s in found.solutions] == [1, 3]


def test_another_format_is_refused(tmp_path: Path) -> None:
    record = {"unique_id": "a", "level": 1, "problem": "q", "steps": ["a"], "ratings": [1]}
    with pytest.raises(ProblemError, match=r"none of 1 lines .* no field 'input'.*labels\.source"):
        read_shepherd(write(tmp_path / "x.jsonl", record))
    with pytest.raises(ProblemError, match="none of 1 lines"):
        read_prm800k(write(tmp_path / "y.jsonl", GOOD))


WORDS = st.text(st.sampled_from("ab 1+-=.$\n"), min_size=1).filter(lambda text: text.strip())


@given(WORDS, st.lists(st.tuples(WORDS, st.sampled_from("+-")), min_size=1, max_size=5))
def test_what_was_written_is_read(question: str, rated: list[tuple[str, str]]) -> None:
    steps, signs = [s for s, _ in rated], "".join(sign for _, sign in rated)
    solution, task = _read(line(question, steps, signs), Path("x"), 1)
    assert solution.question == question.strip()
    assert solution.steps == tuple(step.strip() for step in steps)
    assert solution.ratings == tuple({"+": 1, "-": -1}[sign] for sign in signs)
    assert task == "MATH"


def test_real_lines(data_dir: Path) -> None:
    found = read_shepherd(data_dir / "steps" / "samples_math-shepherd.jsonl.gz")
    assert found.counts == {"records": 7, "task_GSM8K": 7}
    assert found.bad_lines == ()
    assert [s.ratings for s in found.solutions] == [
        (1, 1, 1, 1, -1),
        (-1, -1, -1),
        (-1, -1),
        (-1, -1, -1, -1, -1),
        (1, -1, -1, -1, -1),
        (-1, -1),
        (-1, -1, -1),
    ]
    assert [s.steps[-1].rpartition("\n\n")[2] for s in found.solutions] == [
        "13520", "16000", "40", "900", "52", "2.2", "210",
    ]  # fmt: skip
    assert found.solutions[2].question.endswith("to reach San Francisco from New Orleans?")
