import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.problems.math.prm800k import _session, read_prm800k
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import MARKED, SEPARATOR

RECORD = {
    "unique_id": "train/algebra/1.json",
    "level": 2,
    "problem": "What is 1 + 1?",
    "steps": ["One and one.", "That is 2.\n\n# Answer\n\n2"],
    "ratings": [0, 1],
    "final_answer": "2",
}


def write(path: Path, *records: dict[str, Any] | str) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def step(
    *rated: tuple[str, int | None], chosen: int | None = None, human: str | None = None
) -> dict[str, Any]:
    """A step of a session in PRM800K's format."""
    return {
        "completions": [{"text": text, "rating": rating, "flagged": False} for text, rating in rated],
        "human_completion": None if human is None else {"text": human, "rating": None, "source": "human"},
        "chosen_completion": chosen,
    }


def session(*steps: Any, reason: str = "solution", **marks: Any) -> dict[str, Any]:
    return {
        "labeler": "x",
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {"problem": "What is 1 + 1?", "ground_truth_answer": "2"},
        "label": {"steps": list(steps), "total_time": 1, "finish_reason": reason},
        **marks,
    }


# Decoded records


def test_a_decoded_record_is_a_solution(tmp_path: Path) -> None:
    other = {**RECORD, "unique_id": "train/algebra/2.json", "level": None, "final_answer": None}
    labels = read_prm800k(write(tmp_path / "x.jsonl", RECORD, RECORD, other))
    assert labels.counts == {"records": 3}  # repeats are left to the labelling stage
    assert [(s.file, s.line) for s in labels.solutions] == [("x.jsonl", 1), ("x.jsonl", 2), ("x.jsonl", 3)]
    assert [s.unique_id for s in labels.solutions[1:]] == ["train/algebra/1.json", "train/algebra/2.json"]
    assert labels.solutions[0].ratings == (0, 1)
    assert labels.solutions[0].question == "What is 1 + 1?"
    assert labels.solutions[2].level is None
    assert labels.bad_lines == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": [1]}, "2 steps but 1 ratings; there must be one for each"),
        ({"ratings": [1, 2]}, "ratings must be -1, 0 or 1, not [2]"),
        ({"ratings": [1, True]}, "'ratings' must be a list of int"),
        ({"steps": [], "ratings": []}, "0 steps"),
        ({"steps": "One"}, "'steps' must be list, not str"),
        ({"level": 7}, "level 7 is not 1-5"),
        ({"final_answer": 2}, "'final_answer' must be str"),
        ({"final_answer": "3"}, "final_answer is '3', but the steps end in '2'"),
        ({"steps": ["# Answer\n\n2", "So 2."], "final_answer": None}, "a step follows the answer"),
        ({"steps": ["a", "# Answer\n\n2\n\n# Answer\n\n2"]}, "a step has more than one # Answer"),
    ],
)
def test_a_bad_record_is_listed_and_does_not_pass(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    labels = read_prm800k(write(tmp_path / "bad.jsonl", RECORD, {**RECORD, **change}, RECORD))
    (bad,) = labels.bad_lines
    assert (bad.file, bad.line) == ("bad.jsonl", 2)
    assert bad.reason.startswith(message)
    assert [s.line for s in labels.solutions] == [1, 3]
    assert labels.counts["records"] == 2


@pytest.mark.parametrize("line", ['{"steps": [', "[1, 2]", '{"a": "\\ud8"}', '"text"'])
def test_an_unreadable_line_is_listed_too(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "x.jsonl", RECORD, "", line)
    path.write_bytes(path.read_bytes() + b'{"problem": "\xff"}\n')
    labels = read_prm800k(path)
    assert [bad.line for bad in labels.bad_lines] == [3, 4]
    assert "save the file as UTF-8" in labels.bad_lines[1].reason
    assert len(labels.solutions) == 1


def test_a_file_of_which_no_line_passes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ProblemError, match=r"none of 2 lines can be used; the first: x\.jsonl:1: .*labels\.path"
    ):
        read_prm800k(write(tmp_path / "x.jsonl", "{}", "{}"))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps({**RECORD, "i": i}).encode() + b"\n" for i in range(999)))
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProblemError, match=r"x\.jsonl\.gz: damaged after line"):
        read_prm800k(path)


def test_missing_labels_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    with pytest.raises(ProblemError, match=r"labels\.path"):
        read_prm800k()
    with pytest.raises(ProblemError, match="no prm800k_human"):
        read_prm800k(tmp_path)
    with pytest.raises(ProblemError, match="no such file"):
        read_prm800k(tmp_path / "none.jsonl")


# Sessions


def solutions(tmp_path: Path, *sessions: dict[str, Any]) -> list[tuple[list[str], list[int | None]]]:
    found = read_prm800k(write(tmp_path / "phase1_train.jsonl", *sessions))
    return [(list(s.steps), list(s.ratings)) for s in found.solutions]


def test_every_rated_completion_ends_a_prefix(tmp_path: Path) -> None:
    line = session(
        step(("A", 1), ("B", -1), ("C", None), chosen=0),
        step(("D", -1), ("E", -1), human="F"),
        step(("G", 0), ("H\n\n# Answer\n\n2", 1), chosen=1),
    )
    assert solutions(tmp_path, line) == [
        (["A", "F", "H\n\n# Answer\n\n2"], [1, None, 1]),  # the chosen path
        (["A", "F", "G"], [1, None, 0]),
        (["A", "D"], [1, -1]),
        (["A", "E"], [1, -1]),
        (["B"], [-1]),
    ]  # C is not rated, F only a prefix


def test_a_path_that_ends_at_an_error_comes_with_what_was_shown_there(tmp_path: Path) -> None:
    line = session(step(("A", 1), chosen=0), step(("B", -1), ("C", 1)), reason="found_error")
    assert solutions(tmp_path, line) == [(["A", "B"], [1, -1]), (["A", "C"], [1, 1])]


def test_a_path_that_ends_in_a_written_step_does_so_too(tmp_path: Path) -> None:
    line = session(step(("A", 1), chosen=0), step(("B", -1), human="C"), reason="give_up")
    assert solutions(tmp_path, line) == [(["A", "B"], [1, -1])]


def test_a_session_without_ratings_gives_nothing(tmp_path: Path) -> None:
    empty = {"completions": None, "human_completion": None, "chosen_completion": None}
    lines = [session(), session(empty), session(step(human="A")), session(step(("A", None), chosen=0))]
    rated = session(step(("A", 1), chosen=0), empty)
    assert solutions(tmp_path, *lines, rated) == [(["A"], [1])]


def test_sessions_are_counted_by_kind(tmp_path: Path) -> None:
    one = step(("A", 1), chosen=0)
    path = write(
        tmp_path / "phase2_train.jsonl",
        session(one, is_quality_control_question=True),
        session(one, reason="give_up", is_initial_screening_question=True, is_quality_control_question=True),
        session(one, reason="bad_problem"),
    )
    write(tmp_path / "phase2_test.jsonl", session(one))  # of MATH500 problems: not used
    for found in (read_prm800k(path), read_prm800k(tmp_path)):
        assert found.counts == {
            "records": 3,
            "quality_control": 2,
            "screening": 1,
            "finish_solution": 1,
            "finish_give_up": 1,
            "finish_bad_problem": 1,
        }
        assert all(s.unique_id is None and s.level is None for s in found.solutions)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (session("A"), "step 1 must be an object"),
        (session(step(("A", 1), chosen=1)), "step 1: chosen_completion 1 is none of 1"),
        (session(step(("A", 1), chosen=-1)), "step 1: chosen_completion -1 is none of 1"),
        (session(step(("A", 1)), step(("B", 1), chosen=0)), "step 2 follows a step where nothing was chosen"),
        (session(step(("A", 2), chosen=0)), "step 1: rating must be -1, 0, 1 or null, not 2"),
        (session(step((" ", 1), chosen=0)), "step 1: a completion must be an object with a 'text'"),
        (
            session(step(("# Answer\n\n2", 1), chosen=0), step(("A", 1), chosen=0)),
            "a step follows the answer",
        ),
        (session({"completions": 3}), "step 1: 'completions' must be a list"),
        ({**session(), "question": None}, "'question' must be dict"),
        ({**session(), "label": []}, "'label' must be dict"),
        ({**session(), "label": {}}, "no field 'steps'"),
    ],
)
def test_an_inconsistent_session_is_listed(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    found = read_prm800k(write(tmp_path / "x.jsonl", session(step(("A", 1), chosen=0)), line))
    (bad,) = found.bad_lines
    assert bad.line == 2
    assert bad.reason.startswith(reason)
    assert len(found.solutions) == 1


STEPS = st.lists(
    st.tuples(st.lists(st.sampled_from([1, 0, -1, None]), min_size=1, max_size=4), st.integers(0, 4)),
    max_size=5,
)


@given(STEPS)
def test_each_rated_completion_is_a_last_step_or_on_the_path(
    drawn: list[tuple[list[int | None], int]],
) -> None:
    """For random sessions: the rated (prefix, step) pairs are exactly the pairs of the resulting
    solutions."""
    steps, wanted, prefix = [], set(), []
    for i, (ratings, choice) in enumerate(drawn):
        rated = [(f"{i}.{j}", rating) for j, rating in enumerate(ratings)]
        chosen = choice if choice < len(rated) else None
        human = f"{i}.human" if chosen is None else None
        steps.append(step(*rated, chosen=chosen, human=human))
        wanted |= {(*prefix, text, rating) for text, rating in rated if rating is not None}
        prefix.append(human or rated[chosen or 0][0])
    found = _session(session(*steps), Path("x"), 1)
    pairs = {
        (*s.steps[: k + 1], rating) for s in found for k, rating in enumerate(s.ratings) if rating is not None
    }
    assert pairs == wanted
    assert len({s.steps for s in found}) == len(found)
    assert all(s.ratings[-1] is not None for s in found)
    whole = {s.steps for s in found}
    assert not any(other[: len(own)] == own for own in whole for other in whole if other != own)


# Real data


@pytest.fixture
def steps_folder() -> Path:
    if not os.environ.get("E2H_DATA_DIR"):
        pytest.skip("E2H_DATA_DIR is not set: no PRM800K labels here")
    return Path(os.environ["E2H_DATA_DIR"]) / "steps"


def test_real_decoded_labels(steps_folder: Path) -> None:
    labels = read_prm800k()
    assert labels == read_prm800k(steps_folder)
    assert labels.counts == {"records": 1818}
    assert labels.bad_lines == ()
    assert len({s.unique_id for s in labels.solutions}) == 216
    assert Counter(r for s in labels.solutions for r in s.ratings) == {1: 8596, 0: 639, -1: 1566}
    assert all(-1 not in s.ratings[:-1] for s in labels.solutions)  # cut at the first error
    answered = [MARKED.parse(SEPARATOR.join(s.steps)).answer is not None for s in labels.solutions]
    assert sum(answered) == 280


def test_real_sessions(steps_folder: Path) -> None:
    """Six published lines, counted by hand: every rating occurs once, as a last step or on a
    path."""
    path = steps_folder / "samples_prm800k.jsonl.gz"
    found = read_prm800k(path)
    assert found.bad_lines == ()
    assert found.counts == {
        "records": 6,
        "screening": 1,
        "finish_solution": 4,
        "finish_found_error": 1,
        "finish_give_up": 1,
    }
    assert Counter(s.line for s in found.solutions) == {1: 10, 2: 4, 3: 7, 4: 7, 5: 6, 6: 1}
    first = [s for s in found.solutions if s.line == 1]
    assert first[0].ratings == (1, None, 1, 1, 1, 1)  # the second step is the labeller's own
    assert Counter(s.ratings[-1] for s in first) == {1: 4, 0: 1, -1: 5}
