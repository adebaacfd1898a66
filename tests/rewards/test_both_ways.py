"""Labellers that read in both directions: on which architectures, and what only they can learn."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, tiny_model
from transformers import PreTrainedTokenizerFast

from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.models.classifier import scoring_over
from e2h_pipeline.recipe import RewardTraining
from e2h_pipeline.rewards.both_ways import (
    both_ways,
    load_both_ways,
    require_both_ways,
    score_both_ways,
)
from e2h_pipeline.rewards.scoring import encode_for
from e2h_pipeline.solutions import MARKED
from e2h_pipeline.supervision.teacher import Lesson, teach

OWN_MASK = ("falcon-alibi", "bloom", "opt")
"""They make masks or positions of their own from a mask of two dimensions."""


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in OWN_MASK])
def test_a_later_token_changes_an_earlier_state(name: str, ladder_tok: PreTrainedTokenizerFast) -> None:
    model = scoring_over(tiny_model(name, ladder_tok))
    require_both_ways(model)
    ids = torch.tensor([[3, 5, 2, 7]])
    other = torch.tensor([[3, 5, 2, 4]])
    with torch.inference_mode():
        causal = [model(input_ids=x, use_cache=False).logits[0, 0] for x in (ids, other)]
        mask = both_ways(torch.ones_like(ids), model.dtype)
        free = [model(input_ids=x, attention_mask=mask, use_cache=False).logits[0, :1] for x in (ids, other)]
        states = [
            model.base_model(input_ids=x, attention_mask=mask, use_cache=False).last_hidden_state[0, 0]
            for x in (ids, other)
        ]
    assert torch.allclose(*causal)
    assert free[0].shape == free[1].shape
    assert not torch.allclose(*states, atol=1e-3)


@pytest.mark.parametrize("name", OWN_MASK)
def test_an_architecture_that_makes_its_own_mask_is_refused(
    name: str, ladder_tok: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match=r"cannot read in both directions: set labels\.causal=true"):
        require_both_ways(scoring_over(tiny_model(name, ladder_tok)))


def _rows(count: int, seed: int) -> list[dict[str, Any]]:
    """The first step is right if the last one, which comes later, ends in an even digit."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        first, last = rng.randrange(7), rng.randrange(7)
        rows.append(
            {
                "problem_id": str(i),
                "question": "1+1",
                "completion": f"1+1={first}\n\n1+1={last}\n\n",
                "labels": [float(last % 2 == 0), -1.0],
                "finished": False,
            }
        )
    return rows


def test_it_learns_from_later_steps_what_a_causal_one_cannot(tmp_path: Path, ladder_policy: Path) -> None:
    training = RewardTraining(epochs=8, batch_size=16, learning_rate=5e-3)
    accuracy = {}
    for causal in (False, True):
        lesson = Lesson(f"causal-{causal}", ladder_policy, training, MARKED, causal)
        teacher = teach(lesson, _rows(160, 1), Work(tmp_path / "out", tmp_path / "work", 0))
        accuracy[causal] = teacher.judged(_rows(100, 2))["validation_step_accuracy"]
    assert accuracy[False] > 0.95
    assert accuracy[True] < 0.75  # four of seven digits are even


def test_padding_and_batches_change_no_score(tmp_path: Path, ladder_policy: Path) -> None:
    training = RewardTraining(epochs=1, batch_size=16, learning_rate=5e-3)
    lesson = Lesson("one", ladder_policy, training, MARKED, causal=False)
    teacher = teach(lesson, _rows(32, 1), Work(tmp_path / "out", tmp_path / "work", 0))
    model, tokenizer = load_both_ways(teacher.folder)
    texts = ["", "1+1=2", "1+1=2\n\n2*3=6\n\n", "1+1=2\n\n2*3=6\n\n6-1=5\n\n# Answer\n\n5"]
    encoded = [encode_for(model, tokenizer, ("1+1", text, False)) for text in texts]
    together = score_both_ways(model, encoded)
    assert [len(found) for found in together] == [0, 1, 2, 4]
    for budget in (1, 60):
        apart = score_both_ways(model, encoded, budget)
        for one, other in zip(together, apart, strict=True):
            assert one == pytest.approx(other, abs=1e-4)
