from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.rewards.examples import (
    evenly_weighted,
    labelled,
    outcome_example,
    step_example,
    usable,
)
from e2h_pipeline.rewards.kinds.oprm import mixed
from e2h_pipeline.rewards.kinds.pairwise import pair_examples
from e2h_pipeline.solutions import MARKED, encode
from e2h_pipeline.training.batches import Example, documents
from e2h_pipeline.training.next_token import IGNORED

ROW = {
    "problem_id": "a",
    "question": "1+2*2",
    "completion": "1+2=3\n\n3*2=5\n\n# Answer\n\n5",
    "labels": [1, 0, -1],
    "outcome": 1,
    "finished": True,
}


def _labels(example: Any) -> dict[int, float]:
    return {i: x for i, x in enumerate(example["labels"]) if x != IGNORED}


def test_labels_stand_on_the_last_token_of_their_segment_only(ladder_tok: PreTrainedTokenizerFast) -> None:
    example = step_example(ladder_tok, ROW)
    assert _labels(example) == {15: 1.0, 21: 0.0}
    assert list(example["input_ids"]) == list(encode(ladder_tok, "1+2*2", ROW["completion"]).input_ids)


def test_training_and_scoring_look_at_the_same_positions(tok: PreTrainedTokenizerFast) -> None:
    for finished in (True, False):
        row = {**ROW, "labels": [1, 1, 1], "finished": finished}
        ends = encode(tok, row["question"], row["completion"], finished=finished).segment_ends
        assert list(_labels(step_example(tok, row))) == list(ends)
        assert list(_labels(outcome_example(tok, row, tokens="last"))) == [ends[-1]]


def test_soft_labels_stay_soft(ladder_tok: PreTrainedTokenizerFast) -> None:
    assert _labels(step_example(ladder_tok, {**ROW, "labels": [0.75, 0.0, -1.0]})) == {15: 0.75, 21: 0.0}


def test_a_weight_stands_on_every_token(ladder_tok: PreTrainedTokenizerFast) -> None:
    plain, half = (step_example(ladder_tok, {**ROW, "weight": weight}) for weight in (None, 0.5))
    assert plain == step_example(ladder_tok, ROW)
    assert half == {**plain, "weights": [0.5] * len(plain["input_ids"])}
    assert evenly_weighted([plain, plain]) == [plain, plain]
    assert evenly_weighted([plain, half]) == [{**plain, "weights": [1.0] * len(plain["input_ids"])}, half]


def test_a_heading_of_its_own_is_read(ladder_tok: PreTrainedTokenizerFast) -> None:
    text = MARKED.headed("# Homework")
    example = step_example(ladder_tok, ROW, text)
    assert example["input_ids"] == encode(ladder_tok, ROW["question"], ROW["completion"], text=text).input_ids


def test_a_label_too_few_is_an_error(ladder_tok: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="zip"):
        step_example(ladder_tok, {**ROW, "labels": [1, 0]})


def test_an_outcome_stands_on_every_token_of_the_completion(tok: PreTrainedTokenizerFast) -> None:
    encoded = encode(tok, ROW["question"], ROW["completion"])
    for outcome in (0, 1):
        labels = _labels(outcome_example(tok, {**ROW, "outcome": outcome}))
        assert list(labels) == list(range(encoded.prompt_tokens, len(encoded.input_ids)))
        assert set(labels.values()) == {float(outcome)}


def test_an_empty_completion_has_no_outcome(ladder_tok: PreTrainedTokenizerFast) -> None:
    for tokens in ("every", "last"):
        example = outcome_example(ladder_tok, {**ROW, "completion": ""}, tokens=tokens)  # type: ignore[arg-type]
        assert labelled(example) == 0
        assert usable([example], 100) == []


def _rows(outcomes: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {**ROW, "problem_id": name, "completion": f"{name}\n\n# Answer\n\n{i}", "outcome": int(x)}
        for name, drawn in outcomes.items()
        for i, x in enumerate(drawn)
    ]


def _pairs(tok: PreTrainedTokenizerFast, rows: list[dict[str, Any]]) -> list[Example]:
    return pair_examples(rows, 0, lambda row: outcome_example(tok, row, MARKED, "last"))


def test_pairs_are_of_one_problem_right_one_first(ladder_tok: PreTrainedTokenizerFast) -> None:
    rows = _rows({"3": "10010", "4": "111", "5": "0", "6": "01"})
    pairs = _pairs(ladder_tok, rows)
    assert len(pairs) == 3 + 1  # problem 3 has three wrong ones; problems 4 and 5 have one class only
    texts = {tuple(ladder_tok(r["question"])["input_ids"]): r for r in rows}
    assert texts
    used = set()
    for pair in pairs:
        right, wrong = documents(pair)
        assert list(_labels(right).values()) == [1.0]
        assert list(_labels(wrong).values()) == [0.0]
        text = [ladder_tok.decode(document["input_ids"]) for document in (right, wrong)]
        found = [next(r for r in rows if r["completion"] in t) for t in text]
        assert found[0]["problem_id"] == found[1]["problem_id"]
        assert [r["outcome"] for r in found] == [1, 0]
        used |= {r["completion"] for r in found}
    assert used == {r["completion"] for r in rows if r["problem_id"] in "36"}
    assert _pairs(ladder_tok, rows) == pairs


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.05, 0.95))
def test_the_mix_has_its_share_and_uses_all_of_the_rarer_kind(
    steps: int, outcomes: int, share: float
) -> None:
    one, other = ([{"input_ids": [kind, i]} for i in range(n)] for kind, n in ((0, steps), (1, outcomes)))
    kept, drawn = mixed(one, other, share, seed=1)
    assert (len(kept), len(drawn)) == (steps, outcomes) or len(kept) == steps or len(drawn) == outcomes
    assert abs(len(drawn) - share * (len(kept) + len(drawn))) <= 1
    assert mixed(one, other, share, seed=1) == (kept, drawn)
    assert all(example in one for example in kept)
    assert all(example in other for example in drawn)


def test_a_pair_is_too_long_where_one_of_its_solutions_is(ladder_tok: PreTrainedTokenizerFast) -> None:
    rows = _rows({"3": "10"})
    rows[1]["completion"] = "3+3=6\n\n" * 6 + rows[1]["completion"]
    pairs = _pairs(ladder_tok, rows)
    longest = max(len(document["input_ids"]) for document in documents(pairs[0]))
    assert usable(pairs, longest) == pairs
    assert usable(pairs, longest - 1) == []


def test_an_empty_completion_is_in_no_pair(ladder_tok: PreTrainedTokenizerFast) -> None:
    """It has no token to score; a pair with one label would shift all later pairs of the batch."""
    question = "What is 1+2?"
    texts = [("1+2=3\n\n# Answer\n\n3", 1), ("", 0), ("1+2=4\n\n# Answer\n\n4", 0)]
    rows = [
        {"problem_id": "a", "question": question, "completion": text, "finished": True, "outcome": outcome}
        for text, outcome in texts
    ]
    pairs = _pairs(ladder_tok, rows)
    assert [[label for label in pair["labels"] if label >= 0] for pair in pairs] == [[1.0, 0.0]]
