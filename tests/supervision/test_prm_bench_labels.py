import json
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.problems.files import data_folder
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.recipe import PrmBenchLabels
from e2h_pipeline.supervision.prm_bench import PrmBenchSource


def _record(**changed: Any) -> dict[str, Any]:
    return {
        "modified_question": "What is 1 + 1?",
        "modified_process": ["1. We add.", "2. That is 3.", "So 3."],
        "error_steps": [2, 3],
        **changed,
    }


def _read(tmp_path: Path, *records: dict[str, Any]) -> Any:
    file = tmp_path / "prmbench.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return PrmBenchSource().read(PrmBenchLabels(path=str(file)))


def test_steps_up_to_the_first_planted_error_are_rated(tmp_path: Path) -> None:
    wrong, right = _read(tmp_path, _record(), _record(error_steps=[])).solutions
    assert (wrong.steps, wrong.ratings) == (("We add.", "That is 3."), (1, -1))
    assert (right.steps, right.ratings) == (("We add.", "That is 3.", "So 3."), (1, 1, 1))
    assert wrong.question == "What is 1 + 1?"


def test_a_file_of_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProblemError, match=r"prmbench.jsonl: none of 1 lines can be used"):
        _read(tmp_path, _record(error_steps=[0]))
    monkeypatch.delenv("E2H_DATA_DIR", raising=False)
    with pytest.raises(ProblemError, match="needs a file"):
        PrmBenchSource().files(PrmBenchLabels())


@pytest.mark.skipif(data_folder("steps") is None, reason="needs PRMBench in E2H_DATA_DIR/steps")
def test_all_of_prm_bench_can_be_read() -> None:
    found = PrmBenchSource().read(PrmBenchLabels())
    assert len(found.solutions) == 6216
    assert not found.bad_lines
