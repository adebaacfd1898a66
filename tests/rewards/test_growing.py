"""Texts that grow: scores are those of whole texts, and each step is read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.models.load import load_evaluator
from e2h_pipeline.rewards import growing
from e2h_pipeline.rewards.evaluators import write_kind
from e2h_pipeline.rewards.growing import GrowingScorer, Reader, search_scorer
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.rewards.step_scorer import StepScorer
from e2h_pipeline.solutions import MARKED

BLOCK = st.sampled_from(["3+5=8", "8*2=7", "1", "# Answer", "8", "", "\n7", "3+5=8 = 8"])
TEXT = st.lists(BLOCK, max_size=5).map("\n\n".join)


@pytest.fixture(scope="module")
def reader(ladder_evaluator: Path) -> Reader:
    return Reader(*load_evaluator(ladder_evaluator), MARKED)


def _whole(reader: Reader, asked: list[tuple[str, str, bool]]) -> list[list[float]]:
    return score_solutions(reader.model, reader.tokenizer, asked, text=MARKED)


def _agree(found: list[list[float]], expected: list[list[float]]) -> None:
    assert [len(own) for own in found] == [len(own) for own in expected]
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["3+5", "1*2*3"]), TEXT, st.booleans()), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_scores_are_those_of_whole_texts(reader: Reader, calls: list[list[tuple[str, str, bool]]]) -> None:
    """In any order of calls, and where a text goes on in the middle of a block."""
    for asked in calls:
        _agree(reader.logits(asked), _whole(reader, asked))


@settings(max_examples=15, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_little_room_changes_nothing(ladder_evaluator: Path, texts: list[str]) -> None:
    reader = Reader(*load_evaluator(ladder_evaluator), MARKED, batch_tokens=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "_HELD_BYTES", 20_000)
        for text in texts:
            asked = [("3+5", text, False), ("3+5", text + "\n\n9", True)]
            _agree(reader.logits(asked), _whole(reader, asked))
            assert reader._held <= 20_000


def test_a_step_is_read_once(ladder_evaluator: Path) -> None:
    reader = Reader(*load_evaluator(ladder_evaluator), MARKED)
    steps = ["3+5=8\n\n", "8*2=6\n\n", "6-1=5\n\n"]
    text, read = "", []
    for step in steps:
        begun, text = text, text + step
        before = reader.tokens_read
        reader.logits([("3+5*2-1", text, False), ("3+5*2-1", begun + "1+1=2\n\n", False)])
        read.append(reader.tokens_read - before)
    prompt = reader._encode(("3+5*2-1", "", False)).prompt_tokens
    counts = [reader.count_tokens(("3+5*2-1", "".join(steps[: i + 1]), False)) for i in range(3)]
    assert read == [prompt + 2 * counts[0], 2 * (counts[1] - counts[0]), 2 * (counts[2] - counts[1])]
    again = reader.tokens_read
    reader.logits([("3+5*2-1", text, False), ("3+5*2-1", "".join(steps[:2]), False)])
    assert reader.tokens_read == again


def test_evaluators_that_are_read_in_a_way_of_their_own_read_whole_beginnings(
    ladder_evaluator: Path, tmp_path: Path
) -> None:
    assert isinstance(search_scorer(ladder_evaluator, MARKED), GrowingScorer)
    write_kind(tmp_path, "outside", {})
    assert isinstance(search_scorer(tmp_path, MARKED), StepScorer)
