"""What waits for labels: easy problems only, in PRM800K's writing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.generation.engines.protocol import Sample
from e2h_pipeline.generation.sample_pool import pool_table
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemSplit, easy_table
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.queue import (
    CUT_OFF,
    NO_STEPS,
    NOT_EASY,
    EasyProblems,
    queue_of_file,
    queue_of_samples,
    written_steps,
)

WHOLE = "1+2=3\n\n3*2=6\n\n# Answer\n\n6"


@pytest.fixture
def easy(tmp_path: Path) -> EasyProblems:
    """Problems of levels 2 and 5, as in a ceiling, which supervises all levels."""
    problems = [
        Problem("a", 2, "x", "1+2*2", ("1+2=3",), "6"),
        Problem("b", 2, "x", "2+2*2", ("2+2=4",), "1"),
        Problem("hard", 5, "x", "3+3*3", ("3+3=6",), "4"),
    ]
    write_table(tmp_path / "easy" / "data.parquet", easy_table(ProblemSplit(tuple(problems), (), (), ())))
    return EasyProblems.of(tmp_path / "easy", (1, 2, 3), MARKED)


def pool(folder: Path, *samples: tuple[str, str, str]) -> Path:
    pairs = [
        ({"problem_id": name, "level": 2}, Sample(i, text, (1, 2), reason, -1.0))
        for i, (name, text, reason) in enumerate(samples)
    ]
    write_table(folder / "pool" / "part-00000.parquet", pool_table(pairs, LADDER))
    return folder / "pool"


def test_samples_of_hard_problems_are_never_asked_about_even_of_a_ceiling(
    easy: EasyProblems, tmp_path: Path
) -> None:
    samples = pool(
        tmp_path,
        ("hard", WHOLE, "stop"),
        ("a", WHOLE, "stop"),
        ("a", WHOLE, "stop"),  # the same again
        ("a", "1+2=4\n\n# Answer\n\n1", "stop"),
        ("b", "2+2=", "length"),
        ("b", "", "stop"),
        ("b", "2+2=4\n\n# Answer\n\n1", "stop"),
    )
    queue = queue_of_samples(samples, easy, "tiny", 10, seed=0)
    assert {item.name for item in queue.items} == {"a#1", "a#3", "b#6"}
    assert {item.name[0] for item in queue.items[:2]} == {"a", "b"}  # each problem in its turn
    assert queue.left_out == {NOT_EASY: 1, CUT_OFF: 1, NO_STEPS: 1}
    assert {item.name[0]: item.reference for item in queue.items} == {"a": "6", "b": "1"}
    assert queue_of_samples(samples, easy, "tiny", 2, seed=0).items == queue.items[:2]


def test_a_file_brings_no_reference_and_an_experiment_only_that_of_easy_problems(
    easy: EasyProblems, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [
        {"question": "1+2*2", "steps": ["1+2=3", "3*2=6"], "answer": "told", "reference": "told"},
        {"question": "3+3*3", "completion": WHOLE, "answer": "told"},
    ]
    file = tmp_path / "queue.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    alone = queue_of_file(file)
    assert [(item.steps, item.reference) for item in alone.items] == [
        (("1+2=3", "3*2=6"), None),
        (("1+2=3", "3*2=6\n\n# Answer\n\n6"), None),
    ]
    beside = queue_of_file(file, easy)
    assert [(item.question, item.reference) for item in beside.items] == [("1+2*2", "6")]
    assert beside.left_out == {NOT_EASY: 1}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"question": "q"}, "completion"),
        ({"question": "q", "steps": ["a", 3]}, "texts"),
        ({"question": "q", "steps": [" "]}, "texts"),
        ({"steps": ["a"]}, "question"),
        ({"question": "q", "steps": ["\ud800"]}, "half a character"),
        ({"question": "q", "steps": []}, "no solution can be labelled"),
    ],
)
def test_lines_that_cannot_be_labelled_are_named(line: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "queue.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ProblemError, match=why):
        queue_of_file(tmp_path / "queue.jsonl")


@given(st.lists(st.sampled_from(["a", "b b", "\n\n", "\n", "# Answer", " ", "6"])))
def test_only_the_last_step_has_an_answer(pieces: list[str]) -> None:
    steps = written_steps("".join(pieces), MARKED)
    assert all(step.strip() for step in steps)
    assert not any("# Answer" in step for step in steps[:-1])
    assert not steps or steps[-1].count("# Answer") <= 1
