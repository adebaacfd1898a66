"""The watch gives up the right samples, scores nothing twice, and takes its threshold from easy
validation only."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.generation.engines.protocol import Candidate
from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.recipe import EarlyStop
from e2h_pipeline.rewards import early_stop as watching
from e2h_pipeline.rewards.early_stop import (
    StepWatch,
    completed_steps,
    easy_watch,
    right_lowest_scores,
    threshold_losing,
)
from e2h_pipeline.rewards.evaluators import open_evaluator
from e2h_pipeline.rewards.scoring import score_solutions

QUESTION = "1+2*2"
STEPS = ("1+2=3\n\n", "3*2=6\n\n")


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("", ""),
        ("1+2=3", ""),
        ("1+2=3\n", ""),
        ("1+2=3\n\n", "1+2=3\n\n"),
        ("1+2=3\n\n3*2", "1+2=3\n\n"),
        ("1+2=3\n\n3*2=6\n\n# Answ", "1+2=3\n\n3*2=6\n\n"),
        ("1+2=3\n\n# Answer", "1+2=3\n\n"),
        ("1+2=3\n\n# Answer\n\n", "1+2=3\n\n"),
        ("1+2=3\n\n# Answer\n\n3\n\n4*4=2\n\n", "1+2=3\n\n"),  # text after an answer is not a step
        ("# Answer\n\n3", ""),
        ("1+2=3\n\n\n3*2=6", "1+2=3\n\n"),
    ],
)
def test_completed_steps_end_at_a_blank_line_before_the_answer(text: str, over: str) -> None:
    assert completed_steps(text) == over


def candidate(text: str, index: int = 0, question: str = QUESTION) -> Candidate:
    return Candidate(key=7, index=index, question=question, completion=text)


def lowest(evaluator: Path, text: str) -> float:
    """Lowest step probability of the finished steps, from a separate pass."""
    (logits,) = score_solutions(*load_evaluator(evaluator), [(QUESTION, text, False)])
    return float(1 / (1 + np.exp(-min(logits))))


@pytest.fixture
def passes(ladder_evaluator: Path) -> Iterator[tuple[StepWatch, list[int]]]:
    """A watch that gives up nothing, and the number of texts in each of its forward passes."""
    rows: list[int] = []
    watch = StepWatch(ladder_evaluator, 0.0, 4)
    watch._loaded = opened = open_evaluator(ladder_evaluator)
    handle = opened.models[0].base_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield watch, rows
    handle.remove()


def test_a_completed_step_below_the_threshold_is_hopeless(ladder_evaluator: Path) -> None:
    texts = ("1+2=3", "3*2=6", "6", "=", "1+1+1+1", "# Question", "+", "0-5=2", "*6")
    pairs = [(f"{a}\n\n", f"{b}\n\n") for a in texts for b in texts]
    scored = score_solutions(*load_evaluator(ladder_evaluator), [(QUESTION, a + b, False) for a, b in pairs])
    chosen = max(range(len(pairs)), key=lambda i: scored[i][0] - scored[i][1])
    (first, second), (one, worst) = pairs[chosen], 1 / (1 + np.exp(-np.array(scored[chosen])))
    assert worst < one - 0.01  # a second step that the random evaluator likes less than the first
    watch = StepWatch(ladder_evaluator, float(one + worst) / 2, 4)
    drawn = ["1+2", first, first + second.strip(), first + second, first + second + "# Answer\n\n6"]
    asked = [candidate(text, i) for i, text in enumerate(drawn)]
    assert watch.hopeless(asked) == [False, False, False, True, True]
    assert watch.hopeless(asked) == [False, False, False, True, True]  # drawn again: judged as before
    assert watch.hopeless([]) == []


def test_steps_that_were_judged_are_not_scored_again(passes: tuple[StepWatch, list[int]]) -> None:
    watch, rows = passes
    watch.hopeless([candidate("1+2=")])
    assert rows == []  # no step is finished yet
    watch.hopeless([candidate(STEPS[0])])
    watch.hopeless([candidate(STEPS[0] + "3*")])
    assert rows == [1]
    watch.hopeless([candidate("".join(STEPS)), candidate(STEPS[0], 1)])
    assert sum(rows) == 3
    watch.hopeless([candidate(STEPS[0])])  # the sample is drawn anew
    assert sum(rows) == 4
    watch.hopeless([candidate(STEPS[0], question="1+2*3")])  # of another question
    assert sum(rows) == 5


def test_equal_texts_are_scored_once(passes: tuple[StepWatch, list[int]]) -> None:
    watch, rows = passes
    watch.hopeless([candidate(STEPS[0], i) for i in range(20)])
    assert rows == [1]


def test_memory_is_bounded(passes: tuple[StepWatch, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_REMEMBERED", 3)
    watch, rows = passes
    for i in range(10):
        watch.hopeless([candidate(STEPS[0], i)])
    assert len(watch._hopeful) == 3
    watch.hopeless([candidate(STEPS[0], i) for i in (7, 8, 9)])
    assert len(rows) == 10


def test_a_fresh_watch_travels(ladder_evaluator: Path) -> None:
    sent = pickle.dumps(StepWatch(ladder_evaluator, 1.0, 4))
    assert len(sent) < 1000
    assert pickle.loads(sent).hopeless([candidate(STEPS[0])]) == [True]  # noqa: S301


@pytest.mark.parametrize(
    ("lose", "threshold"), [(0.0, 0.2), (0.1, 0.2), (0.2, 0.4), (0.39, 0.4), (0.5, 0.6), (0.99, 0.9)]
)
def test_the_threshold_loses_what_may_be_lost(lose: float, threshold: float) -> None:
    assert threshold_losing(np.array([0.2, 0.4, 0.6, 0.7, 0.9]), lose) == threshold


@given(st.lists(st.floats(0, 1), max_size=40), st.floats(0, 0.999))
def test_no_higher_threshold_would_do(scores: list[float], lose: float) -> None:
    right = np.sort(np.array(scores))
    threshold = threshold_losing(right, lose)
    assert (right < threshold).sum() <= lose * len(right)
    if len(right):
        assert (right <= threshold).sum() > lose * len(right) - 1e-9


def test_easy_validation_alone_decides(ladder_evaluator: Path, tmp_path: Path) -> None:
    right = "".join(STEPS) + "# Answer\n\n6"

    def row(text: str, labels: list[float], split: str = "validation") -> dict[str, object]:
        return {"split": split, "question": QUESTION, "completion": text, "labels": labels}

    rows = [
        row(right, [1.0, 1.0, 1.0]),
        row("1+2=3\n\n# Answer\n\n3", [0.6, 1.0]),  # soft labels: more often right than not
        row("# Answer\n\n6", [1.0]),  # no step below any threshold
        row("1+2=4\n\n# Answer\n\n4", [0.0, -1.0]),
        row("1+2=5\n\n# Answer\n\n5", [1.0, -1.0]),  # not labelled to its end
        row("1+2=5\n\n# Answer\n\n5", [1.0, 1.0], "train"),
    ]
    write_table(tmp_path / "data.parquet", pa.Table.from_pylist(rows))
    scores = sorted([lowest(ladder_evaluator, "".join(STEPS)), lowest(ladder_evaluator, STEPS[0]), 1.0])
    assert right_lowest_scores(ladder_evaluator, tmp_path) == pytest.approx(scores, abs=1e-6)
    options = EarlyStop(lose=0.4)
    assert easy_watch(ladder_evaluator, tmp_path, options).threshold == pytest.approx(scores[1], abs=1e-6)
    write_table(tmp_path / "data.parquet", pa.Table.from_pylist(rows[3:]))
    assert easy_watch(ladder_evaluator, tmp_path, options).threshold == 0  # nothing is below it
