"""Labelling sessions: PRM800K's rules, nothing lost, and labels of an evaluator in the end."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelling import label_steps

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.problems.math.prm800k import read_prm800k
from e2h_pipeline.problems.records import Problem, ProblemError, ProblemSplit, easy_table
from e2h_pipeline.supervision.queue import Item, Queue
from e2h_pipeline.supervision.sessions import ACTIONS, REFERENCE, UNDO, Session, StaleError

QUEUE = Queue(
    "tiny",
    (
        Item("a#0", "1+2*2", ("1+2=3", "3*2=6\n\n# Answer\n\n6"), "6"),
        Item("a#1", "1+2*2", ("1+2=4", "4*2=1\n\n# Answer\n\n1"), "6"),
        Item("b#0", "What is $\\frac{1}{2}$?", ("A half.", "So.", "# Answer\n\n1/2")),
    ),
    {},
)


def do(session: Session, *actions: str) -> None:
    for action in actions:
        session.act(action, session.version)


def exported(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_the_first_error_ends_a_solution(tmp_path: Path) -> None:
    session = Session(tmp_path / "out.jsonl", QUEUE, "ada")
    do(session, "positive", "neutral", "negative", "positive", "give_up")
    assert session.current is None
    told = [
        (line["label"]["finish_reason"], [s["completions"][0]["rating"] for s in line["label"]["steps"]])
        for line in exported(tmp_path)
    ]
    assert told == [("solution", [1, 0]), ("found_error", [-1]), ("give_up", [1])]
    assert {line["labeler"] for line in exported(tmp_path)} == {"ada"}
    found = read_prm800k(tmp_path / "out.jsonl")
    assert [(s.steps, s.ratings) for s in found.solutions] == [
        (QUEUE.items[0].steps, (1, 0)),
        (("1+2=4",), (-1,)),
        (("A half.",), (1,)),
    ]
    assert found.counts == {"records": 3, "finish_solution": 1, "finish_found_error": 1, "finish_give_up": 1}


def test_undo_goes_back_over_solutions_and_the_export_with_it(tmp_path: Path) -> None:
    session = Session(tmp_path / "out.jsonl", QUEUE)
    do(session, UNDO)  # nothing yet
    assert session.version == 0
    do(session, "positive", "positive", "negative")
    assert len(exported(tmp_path)) == 2
    do(session, UNDO, UNDO)
    assert exported(tmp_path) == []
    assert session.current is not None and session.current.ratings == [1]


def test_a_page_that_is_behind_changes_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path / "out.jsonl", QUEUE)
    session.act("positive", 0)
    with pytest.raises(StaleError):
        session.act("negative", 0)
    with pytest.raises(ValueError, match="no action"):
        session.act("drop table", 1)
    assert session.current is not None and session.current.ratings == [1]


def test_a_reference_is_shown_only_where_there_is_one_and_that_it_was_is_kept(tmp_path: Path) -> None:
    session = Session(tmp_path / "out.jsonl", QUEUE)
    do(session, "positive", REFERENCE, UNDO, "positive", "positive", "negative", REFERENCE, "bad_problem")
    assert [line["provenance"]["reference_shown"] for line in exported(tmp_path)] == [True, False, False]


def test_other_solutions_and_other_people_need_another_file(tmp_path: Path) -> None:
    Session(tmp_path / "out.jsonl", QUEUE, "ada").close()
    with pytest.raises(ProblemError, match="other solutions"):
        Session(tmp_path / "out.jsonl", Queue("tiny", QUEUE.items[:1], {}))
    with pytest.raises(ProblemError, match="session of ada"):
        Session(tmp_path / "out.jsonl", QUEUE, "bob")
    (tmp_path / "junk.jsonl.session").write_bytes(b"junk" * 1000)
    with pytest.raises(ProblemError, match="not a labelling session"):
        Session(tmp_path / "junk.jsonl", QUEUE)


def test_a_file_that_is_none_of_ours_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("labels of another tool\n")
    with pytest.raises(ProblemError, match="of no session here"):
        Session(tmp_path / "out.jsonl", QUEUE)
    assert (tmp_path / "out.jsonl").read_text() == "labels of another tool\n"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=12), st.integers(0, 12))
def test_a_session_that_is_opened_again_is_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], stop: int
) -> None:
    """Whatever is pressed, and wherever it stops: the same state, export and rules."""
    whole, broken = (tmp_path_factory.mktemp("session") for _ in range(2))
    one = Session(whole / "out.jsonl", QUEUE, "ada")
    do(one, *actions)
    two = Session(broken / "out.jsonl", QUEUE, "ada")
    do(two, *actions[:stop])
    again = Session(broken / "out.jsonl", QUEUE, "ada")  # the first was never closed, like a killed one
    do(again, *actions[stop:])
    assert again.version == one.version
    for first, second in zip(exported(whole), exported(broken), strict=True):
        assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    for line in exported(whole):
        ratings = [step["completions"][0]["rating"] for step in line["label"]["steps"]]
        assert -1 not in ratings[:-1]
        assert (line["label"]["finish_reason"] == "found_error") == (ratings[-1:] == [-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session over one easy problem, and another problem's solution."""
    _easy(tmp_path)
    session = Session(tmp_path / "out.jsonl", QUEUE, "ada")
    do(session, "positive", "neutral", "positive", REFERENCE, "negative", "positive", "bad_problem")
    return tmp_path


@pytest.mark.parametrize(("neutral", "label"), [("positive", 1), ("negative", 0), ("soft", 0.5)])
def test_peoples_labels_are_a_source_of_labels(folder: Path, neutral: str, label: float) -> None:
    people = {"source": "people", "path": str(folder / "out.jsonl"), "neutral": neutral}
    rows, summary = label_steps(folder, people)
    assert [(row["completion"].split(), row["labels"]) for row in rows] == [
        (["1+2=3", "3*2=6", "#", "Answer", "6"], [1, label, -1 if label == 0 else label]),
        (["1+2=4", "4*2=1", "#", "Answer", "1"], [1, 0, -1]),
    ]
    assert summary["labels_bought"] == 4
    assert summary["source_records"] == {
        "records": 3,
        "finish_solution": 1,
        "finish_found_error": 1,
        "finish_bad_problem": 1,
        f"queue tiny@{QUEUE.version[:12]}": 3,
        "reference_shown": 1,
        "labellers": 1,
    }
    assert summary["dropped"] == {}  # the bad problem is none of the solutions


def test_a_missing_file_of_people_is_an_error_that_names_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2H_DATA_DIR", str(tmp_path))
    with pytest.raises(ProblemError, match="export of `e2h label`"):
        label_steps(_easy(tmp_path), {"source": "people"})


def _easy(folder: Path) -> Path:
    problem = Problem("a", 2, "x", "1+2*2", ("1+2=3",), "6")
    write_table(folder / "easy" / "data.parquet", easy_table(ProblemSplit((problem,), (), (), ())))
    return folder
