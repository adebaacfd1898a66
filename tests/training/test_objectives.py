import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.rewards.kinds.pairwise import pairwise_loss
from e2h_pipeline.rewards.kinds.stepwise import step_loss
from e2h_pipeline.training.next_token import IGNORED, next_token_loss


def test_next_token_loss_by_hand() -> None:
    # Position t predicts token t + 1. Two target tokens: 1 with odds 1:3, 0 with odds 1:1.
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [9.0, -9.0]]])
    labels = torch.tensor([[IGNORED, 1, 0]])
    expected = -math.log(3 / 4) - math.log(1 / 2)
    assert next_token_loss(logits, labels, 2).item() == pytest.approx(expected / 2)
    assert next_token_loss(logits, labels, 8).item() == pytest.approx(expected / 8)


def test_the_first_label_and_the_last_logits_have_no_say() -> None:
    logits = torch.zeros(1, 3, 4)
    usual = next_token_loss(logits, torch.tensor([[IGNORED, 2, 3]]), 2)
    logits[0, -1] = torch.tensor([50.0, 0, 0, 0])
    assert next_token_loss(logits, torch.tensor([[1, 2, 3]]), 2) == usual
    assert usual.item() == pytest.approx(math.log(4))


def test_step_loss_by_hand() -> None:
    # sigmoid(ln 3) = 3/4 for a right step, sigmoid(0) = 1/2 for a wrong one, the rest unlabelled
    logits = torch.tensor([[[math.log(3)], [7.0], [0.0]], [[-7.0], [1.0], [2.0]]])
    labels = torch.tensor([[1.0, IGNORED, 0.0], [IGNORED] * 3])
    assert step_loss(logits, labels, 2).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_soft_label_is_its_cross_entropy() -> None:
    loss = step_loss(torch.tensor([[[math.log(3)]]]), torch.tensor([[0.25]]), 1)
    assert loss.item() == pytest.approx(-0.25 * math.log(3 / 4) - 0.75 * math.log(1 / 4))


def test_a_weighted_label_counts_as_often() -> None:
    # ln 4/3 with weight 1 and ln 2 with weight 3
    logits, labels = torch.tensor([[[math.log(3)], [0.0]]]), torch.tensor([[1.0, 0.0]])
    loss = step_loss(logits, labels, 4, torch.tensor([[1.0, 3.0]])).item()
    assert loss == pytest.approx((math.log(4 / 3) + 3 * math.log(2)) / 4)


def test_nothing_labelled_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(2, 3, 1, requires_grad=True)
    loss = step_loss(logits, torch.full((2, 3), float(IGNORED)), 1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, IGNORED]), min_size=4, max_size=4), min_size=2, max_size=6))
def test_parts_of_a_batch_add_up_to_the_whole(rows: list[list[int]]) -> None:
    labels = torch.tensor(rows)
    torch.manual_seed(0)
    scores, words = torch.randn(len(rows), 4, 1), torch.randn(len(rows), 4, 3)
    total = max(1, int((labels != IGNORED).sum()))
    whole = step_loss(scores, labels.float(), total)
    parts = sum(step_loss(scores[i : i + 1], labels[i : i + 1].float(), total) for i in range(len(rows)))
    assert float(parts) == pytest.approx(whole.item(), abs=1e-5)
    whole = next_token_loss(words, labels, total)
    parts = sum(next_token_loss(words[i : i + 1], labels[i : i + 1], total) for i in range(len(rows)))
    assert float(parts) == pytest.approx(whole.item(), abs=1e-5)


def test_pairwise_loss_by_hand() -> None:
    # Differences .03 (-log sigmoid = .678260) and ln 3 (-log 3/4), rows with different last tokens
    # before padding
    logits = torch.tensor([[[9.0], [0.53]], [[0.5], [8.0]], [[7.0], [math.log(3)]], [[0.0], [7.0]]])
    labels = torch.tensor([[IGNORED, 1.0], [0.0, IGNORED], [IGNORED, 1.0], [0.0, IGNORED]])
    assert pairwise_loss(logits[:2], labels[:2], 2).item() == pytest.approx(0.678260, abs=1e-6)
    whole = pairwise_loss(logits, labels, 4).item()
    assert whole == pytest.approx((0.678260 + math.log(4 / 3)) / 2, abs=1e-6)
    halves = [pairwise_loss(logits[i : i + 2], labels[i : i + 2], 4).item() for i in (0, 2)]
    assert sum(halves) == pytest.approx(whole)


def test_pairwise_scores_of_like_height_are_even_odds() -> None:
    labels = torch.tensor([[1.0], [0.0]])
    assert pairwise_loss(torch.full((2, 1, 1), 3.0), labels, 2).item() == pytest.approx(0.693147, abs=1e-6)


@pytest.mark.parametrize("labels", [[[0.0], [1.0]], [[1.0], [1.0]], [[1.0], [IGNORED]]])
def test_parted_pairs_are_refused(labels: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="right, wrong"):
        pairwise_loss(torch.zeros(2, 1, 1), torch.tensor(labels), 2)
