import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.problems.prm800k import read_prm800k
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.solutions import SEPARATOR, parse_completion

RECORD = {
    "unique_id": "train/algebra/1.json",
    "level": 2,
    "problem": "What is 1 + 1?",
    "steps": ["One and one.", "That is 2.\n\n# Answer\n\n2"],
    "ratings": [0, 1],
    "final_answer": "2",
}


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_repeats_go_and_are_counted(tmp_path: Path) -> None:
    again, otherwise = {**RECORD}, {**RECORD, "ratings": [1, -1]}
    elsewhere = {**RECORD, "unique_id": "train/algebra/2.json", "level": None, "final_answer": None}
    labels = read_prm800k(write(tmp_path / "x.jsonl", RECORD, again, otherwise, elsewhere))
    assert [s.unique_id for s in labels.solutions] == ["train/algebra/1.json", "train/algebra/2.json"]
    assert labels.solutions[0].ratings == (0, 1)
    assert labels.solutions[0].question == "What is 1 + 1?"
    assert labels.solutions[1].level is None
    assert labels.counts == {"records": 4, "repeated": 2, "conflicting": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": [1]}, "2 steps but 1 ratings"),
        ({"ratings": [1, 2]}, r"must be -1, 0 or 1, not \[2\]"),
        ({"ratings": [1, True]}, "'ratings' must be a list of int"),
        ({"steps": [], "ratings": []}, "0 steps"),
        ({"steps": "One"}, "'steps' must be list, not str"),
        ({"level": 7}, "level 7 is not 1-5"),
        ({"final_answer": 2}, "'final_answer' must be str"),
    ],
)
def test_a_bad_record_names_file_and_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "bad.jsonl", RECORD, {**RECORD, **change})
    with pytest.raises(ProblemError, match=rf"bad\.jsonl:2: .*{message}"):
        read_prm800k(path)


def test_missing_labels_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    with pytest.raises(ProblemError, match=r"labels\.path"):
        read_prm800k()
    with pytest.raises(ProblemError, match="no prm800k_human"):
        read_prm800k(tmp_path)
    with pytest.raises(ProblemError, match="no such file"):
        read_prm800k(tmp_path / "none.jsonl")


def test_real_labels() -> None:
    if not os.environ.get("E2H_DATA_DIR"):
        pytest.skip("E2H_DATA_DIR is not set: no PRM800K labels here")
    labels = read_prm800k()
    assert labels.counts == {"records": 1818, "repeated": 479, "conflicting": 50}
    assert len(labels.solutions) == 1339
    assert len({s.unique_id for s in labels.solutions}) == 216
    assert all(-1 not in s.ratings[:-1] for s in labels.solutions)  # cut at the first error
    ends = Counter(
        (s.final_answer is not None, parse_completion(SEPARATOR.join(s.steps)).answer == s.final_answer)
        for s in labels.solutions
    )
    assert set(ends) == {(True, True), (False, True)}, ends
