"""Step scores for lines of JSON: what an evaluator reads of a line, and files that survive kills."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from e2h_pipeline.evaluation.outside import step_lines
from e2h_pipeline.evaluation.outside.score_file import Scored, score_file
from e2h_pipeline.evaluation.outside.step_lines import SCORED_BY, STEP_SCORES, score_lines, step_line
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.problems.math.domain import MATH
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.rewards.step_scorer import StepScorer

Record = dict[str, Any]


class Lengths:
    """A scorer whose score of a step is its share of the characters so far: quick, and of every step."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        self.asked.append(len(solutions))
        ends = [[stop for _, stop in MATH.text.parse(text).spans] for _, text, _ in solutions]
        return [np.array(own) / (1 + len(text)) for own, (_, text, _) in zip(ends, solutions, strict=True)]

    def close(self) -> None:
        pass


def numbered(records: Sequence[Record]) -> Iterator[tuple[int, Record]]:
    return iter(list(enumerate(records, start=1)))


def lines_of(count: int) -> list[Record]:
    return [
        {"id": i, "question": f"{i}+{i}", "steps": [f"{i}+{j}={i + j}" for j in range(1 + i % 3)]}
        for i in range(count)
    ]


STEPS = ["1+2=3\n\nthat is 3", "  ", "so\n\n# Answer\n\n3"]
TEXT = "Put 12.\n\nSo it is \\boxed{12}."


@pytest.mark.parametrize(
    ("record", "question", "texts", "finished"),
    [
        (
            {"question": "q", "problem": "p", "steps": STEPS},
            "q",
            ["1+2=3\nthat is 3\n\nso\n\n# Answer\n\n3"],
            True,
        ),
        ({"problem": "p", "steps": ["a", "b"]}, "p", ["a\n\nb\n\n"], False),
        (
            {"question": "o", "modified_question": "m", "modified_process": ["a"], "steps": ["x"]},
            "m",
            ["a\n\n"],
            False,
        ),
        ({"question": "q", "model_output_step_format": [["a", "b"], ["c"]]}, "q", ["a\nb\n\nc\n\n"], False),
        (
            {"question": "q", "response": TEXT},
            "q",
            ["Put 12.\n\nSo it is \\boxed{12}.\n\n# Answer\n\n12"],
            True,
        ),
        (
            {"question": "q", "response": "Put 12.\n\nSo", "finish_reason": "length"},
            "q",
            ["Put 12.\n\nSo"],
            False,
        ),
        (
            {"question": "q", "responses": [TEXT, "a"], "finish_reasons": ["stop", "length"]},
            "q",
            [TEXT + "\n\n# Answer\n\n12", "a"],
            True,
        ),
    ],
)
def test_what_an_evaluator_reads_of_a_line(
    record: Record, question: str, texts: list[str], finished: bool
) -> None:
    line = step_line(1, record, "a.jsonl", MATH)
    assert [(one.question, one.completion) for one in line.asked] == [(question, text) for text in texts]
    assert line.asked[0].finished == finished


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"steps": ["a"]}, "no field 'question'"),
        ({"question": "q", "steps": []}, "'steps' must be a list of steps"),
        ({"question": "q", "steps": ["a", 3]}, "step 1 must be text"),
        ({"question": "q", "steps": ["", " "]}, "needs a step with text; delete the line"),
        ({"question": "q"}, "or give 'steps'"),
        ({"problem_id": "p", "response": "a"}, "no field 'question' or 'problem'"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(record: Record, says: str) -> None:
    with pytest.raises(ProblemError, match=r"^a.jsonl:7: ") as caught:
        step_line(7, record, "a.jsonl", MATH)
    assert says in str(caught.value)


def test_a_step_has_one_score_and_a_text_one_for_each_of_its_blocks(ladder_evaluator: Path) -> None:
    """Scores of an evaluator that is loaded, counted back to the steps of the line."""
    records = [
        {"question": "1+2", "steps": STEPS, "note": "kept", STEP_SCORES: "old"},
        {"question": "1+2", "responses": ["1+2=3\n\n# Answer\n\n3", "1+2=4"]},
        {"question": "1+2", "response": "1+2=3"},
    ]
    scorer = StepScorer(ladder_evaluator, LADDER.text)
    ((first, second, third),) = score_lines(numbered(records), "a", scorer, LADDER, "me")
    scores = first[1][STEP_SCORES]
    assert len(scores) == 3 and scores[0] == scores[1] and all(0 < score < 1 for score in scores)
    assert first[1]["note"] == "kept" and first[1][SCORED_BY] == "me"
    assert [len(own) for own in second[1][STEP_SCORES]] == [2, 1]
    alone = scorer.step_probabilities([("1+2", "1+2=4", False)])[0]
    assert second[1][STEP_SCORES][1] == pytest.approx(alone.tolist(), abs=1e-6)
    assert len(third[1][STEP_SCORES]) == 1 and isinstance(third[1][STEP_SCORES][0], float)


def test_no_more_than_a_batch_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_lines, "BATCH_LINES", 3)
    read = 0

    def endless() -> Iterator[tuple[int, Record]]:
        nonlocal read
        while True:
            read += 1
            yield read, {"question": "q", "steps": ["a"]}

    found = score_lines(endless(), "a", Lengths(), MATH, "")
    assert [len(next(found)) for _ in range(4)] == [3] * 4 and read == 12
    monkeypatch.setattr(step_lines, "BATCH_CHARACTERS", 8)  # a line has four: q, a and a blank line
    assert len(next(score_lines(endless(), "a", Lengths(), MATH, ""))) == 2


def scored_text(records: Sequence[Record], out: Path) -> bytes:
    """What a call without a kill writes."""
    list(score_file(numbered(records), "a", out, Lengths(), MATH, "me"))
    return out.read_bytes()


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 9), stop=st.integers(0, 4), torn=st.binary(max_size=30), packed=st.booleans())
def test_a_stopped_file_goes_on_and_ends_the_same(
    tmp_path_factory: pytest.TempPathFactory, count: int, stop: int, torn: bytes, packed: bool
) -> None:
    """Stopped after any batch, with any bytes of the next one behind it."""
    folder, name = tmp_path_factory.mktemp("scored"), "out.jsonl.gz" if packed else "out.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_lines, "BATCH_LINES", 2)
        expected = scored_text(lines_of(count), folder / f"whole-{name}")
        out, part = folder / name, folder / f".{name}.part"
        running = score_file(numbered(lines_of(count)), "a", out, Lengths(), MATH, "me")
        done = sum(made.lines for made in itertools.islice(running, stop))
        running.close()
        if part.is_file():
            part.write_bytes(part.read_bytes() + torn)
        scorer = Lengths()
        again = list(score_file(numbered(lines_of(count)), "a", out, scorer, MATH, "me"))
    assert out.read_bytes() == expected and sum(made.lines for made in again) == count
    if 0 < done < count:
        assert again[0] == Scored(done, reused=True) and sum(scorer.asked) == count - done
    assert {path.name for path in folder.iterdir()} == {name, f"whole-{name}"}
    opened = gzip.open if packed else open
    with opened(out, "rt", encoding="utf-8") as file:
        assert [json.loads(line)["id"] for line in file] == list(range(count))


def test_a_killed_file_goes_on_and_ends_the_same(
    tmp_path: Path,
    ladder_evaluator: Path,
    kill_midway: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGKILL in the middle of the third batch, after its lines were written and before they count."""
    records = lines_of(9)
    kill_midway(f"""
from e2h_pipeline.evaluation.outside import score_file as scoring, step_lines
from e2h_pipeline.problems.ladder.domain import LADDER
from e2h_pipeline.rewards.step_scorer import StepScorer
step_lines.BATCH_LINES = 2
scorer, write = StepScorer(Path({str(ladder_evaluator)!r}), LADDER.text), scoring._write_journal
def dying(part, journal):
    if journal.lines == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    write(part, journal)
scoring._write_journal = dying
records = iter(list(enumerate({records!r}, start=1)))
list(scoring.score_file(records, "a", Path({str(tmp_path / "out.jsonl")!r}), scorer, LADDER, "me"))
""")
    part = tmp_path / ".out.jsonl.part"
    assert len(part.read_bytes().splitlines()) == 6 and not (tmp_path / "out.jsonl").exists()
    monkeypatch.setattr(step_lines, "BATCH_LINES", 2)
    scorer = StepScorer(ladder_evaluator, LADDER.text)
    made = list(score_file(numbered(records), "a", tmp_path / "out.jsonl", scorer, LADDER, "me"))
    assert made[0] == Scored(4, reused=True)
    list(score_file(numbered(records), "a", tmp_path / "whole.jsonl", scorer, LADDER, "me"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_part_of_other_lines_or_another_evaluator_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_lines, "BATCH_LINES", 2)
    out = tmp_path / "out.jsonl"
    running = score_file(numbered(lines_of(6)), "a", out, Lengths(), MATH, "me")
    next(running)
    with pytest.raises(ProblemError, match="another process writes this file"):
        next(score_file(numbered(lines_of(6)), "a", out, Lengths(), MATH, "me"))
    running.close()
    with pytest.raises(ProblemError, match="of another evaluator or options; delete it"):
        next(score_file(numbered(lines_of(6)), "a", out, Lengths(), MATH, "another"))
    changed = [{**record, "question": "another"} for record in lines_of(6)]
    for other in (changed, lines_of(1)):
        with pytest.raises(ProblemError, match=r"a: not the file whose scores are in .*\.out\.jsonl\.part"):
            next(score_file(numbered(other), "a", out, Lengths(), MATH, "me"))
