"""Grading JSON lines: fields read and written, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2h_pipeline.evaluation.outside import grade_lines as lines
from e2h_pipeline.evaluation.outside.grade_lines import (
    NO_ANSWER,
    Tally,
    compared_record,
    grade_items,
    graded_record,
    read_items,
)
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.grading.verdicts import Grade, Verdict
from e2h_pipeline.problems.records import ProblemError


def graded(*records: dict[str, Any], modes: tuple[str, ...] = ("exact",)) -> list[dict[str, Any]]:
    """The graded lines."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        judges = [stack.enter_context(grader(mode)) for mode in modes]
        batches = grade_items(read_items(enumerate(records, start=1), "a.jsonl"), judges)
        if len(judges) > 1:
            return [compared_record(line, judges) for batch in batches for line in batch]
        return [graded_record(line, judges[0]) for batch in batches for line in batch]


@pytest.mark.parametrize(
    ("record", "answer", "verdict", "tier"),
    [
        ({"gold": "5", "prediction": "5"}, "5", "equal", "text"),
        ({"gold": 5, "prediction": -5}, "-5", "different", "text"),
        ({"gold": "5", "prediction": None}, None, "different", "no-answer"),
        ({"gold": "5", "response": "It is \\boxed{5}."}, "5", "equal", "text"),
        ({"gold": "5", "response": "It is \\boxed{5}.", "finish_reason": "stop"}, "5", "equal", "text"),
        ({"gold": "5", "response": "\\boxed{5}", "finish_reason": "length"}, None, "different", "no-answer"),
        ({"gold": "5", "response": ""}, None, "different", "no-answer"),
        # A given prediction counts, even if the text was cut off.
        (
            {"gold": "5", "prediction": "5", "response": "\\boxed{6}", "finish_reason": "length"},
            "5",
            "equal",
            "text",
        ),
    ],
)
def test_what_a_line_says(record: dict[str, Any], answer: str | None, verdict: str, tier: str) -> None:
    (found,) = graded(record)
    assert (found["answer"], found["verdict"], found["tier"]) == (answer, verdict, tier)
    assert found["grader"] == "exact/1"
    assert found["ms"] >= 0


def test_other_fields_and_their_order_are_kept_and_grading_again_replaces() -> None:
    record = {"z": [1, {"a": None}], "gold": "5", "prediction": "5", "a": 1.5}
    (once,) = graded(record)
    assert list(once) == [*record, "answer", "verdict", "tier", "ms", "grader"]
    assert {name: once[name] for name in record} == record
    assert graded(once) == [once]


def test_modes_side_by_side() -> None:
    (found,) = graded({"gold": "1/2", "prediction": "0.5"}, modes=("math", "exact"))
    assert found["line"] == 1
    assert {mode: said["verdict"] for mode, said in found["modes"].items()} == {
        "math": "equal",
        "exact": "different",
    }
    assert found["verdict"] == "equal"
    assert found["modes"]["exact"]["grader"] == "exact/1"


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"prediction": "5"}, "a.jsonl:1: no field 'gold'; there are prediction"),
        ({}, "a.jsonl:1: no field 'gold'; there are none"),
        ({"gold": "5"}, "a.jsonl:1: neither 'prediction' nor 'response'; there are gold"),
        ({"gold": None, "prediction": "5"}, "'gold' must be text, not null"),
        ({"gold": 0.5, "prediction": "5"}, "'gold' must be text, not a decimal; write it as a JSON string"),
        ({"gold": "5", "prediction": True}, "'prediction' must be text, not true or false"),
        ({"gold": "5", "prediction": ["5"]}, "'prediction' must be text, not a list"),
        ({"gold": "5", "response": {}}, "'response' must be text, not an object"),
    ],
)
def test_bad_lines_are_named(record: dict[str, Any], says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        graded(record)


def test_no_more_than_a_batch_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        nonlocal taken
        while True:  # endless: a reader of the whole file would never return
            taken += 1
            yield taken, {"gold": "5", "prediction": "5", "note": "x" * 90}

    with grader("exact") as judge:
        monkeypatch.setattr(lines, "BATCH_LINES", 10)
        stream = grade_items(read_items(records(), "a.jsonl"), [judge])
        assert len(next(stream)) == taken == 10
        assert len(next(stream)) == 10
        assert taken == 20
        monkeypatch.setattr(lines, "BATCH_CHARACTERS", 300)
        stream = grade_items(read_items(records(), "a.jsonl"), [judge])
        assert [len(next(stream)) for _ in range(2)] == [4, 4]  # 92 characters each


def test_a_tally_counts_all_lines() -> None:
    tally = Tally()
    said = [
        Grade(Verdict.EQUAL, "form"),
        Grade(Verdict.EQUAL, "form"),
        Grade(Verdict.DIFFERENT, "form"),
        Grade(Verdict.UNDECIDED, "sympy"),
        NO_ANSWER,
    ]
    for grade in said:
        tally.add(grade)
    assert (tally.lines, tally.of(Verdict.EQUAL), tally.of(tier="form")) == (5, 2, 3)
    assert tally.accuracy == 2 / 5
    assert tally.tiers == ["form", "sympy", "no-answer"]
