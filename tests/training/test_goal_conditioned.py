import math

import pytest
import torch

from e2h_pipeline.training.goal_conditioned import (
    contrastive_loss,
    goal_state,
    q_filter,
    q_values,
    source_and_goal,
)

RIGHT, UP = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])


def test_the_worked_numbers() -> None:
    """reference/oversight-methods.md, section h: best, orthogonal, worst."""
    assert contrastive_loss(RIGHT, 3 * RIGHT, RIGHT, -RIGHT).item() == pytest.approx(0.626523, abs=1e-6)
    assert contrastive_loss(RIGHT, UP, RIGHT, UP).item() == pytest.approx(1.386294, abs=1e-6)
    assert contrastive_loss(RIGHT, -RIGHT, RIGHT, RIGHT).item() == pytest.approx(2.626523, abs=1e-6)


def test_the_mean_is_inside_the_logarithm() -> None:
    source, goal = torch.cat([RIGHT, RIGHT]), torch.cat([RIGHT, -RIGHT])
    near = (1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(1))) / 2  # 1/2
    far = 1 / (1 + math.exp(-1))
    loss = contrastive_loss(source, goal, source, torch.cat([RIGHT, RIGHT])).item()
    assert loss == pytest.approx(-math.log(near) - math.log(1 - far), abs=1e-6)


def test_a_source_is_before_its_goal_and_all_pairs_are_drawn() -> None:
    i, j = source_and_goal(3, 6, torch.Generator().manual_seed(0), draws=3000)
    assert ((i >= 3) & (i < j) & (j < 6)).all()
    pairs = list(zip(i.tolist(), j.tolist(), strict=True))
    assert all(900 < pairs.count(pair) < 1100 for pair in [(3, 4), (3, 5), (4, 5)])
    with pytest.raises(ValueError, match="1 tokens"):
        source_and_goal(3, 4, torch.Generator())


def test_q_is_the_cosine_with_the_mean_right_end() -> None:
    goal = goal_state(torch.tensor([[1.0, 1.0], [3.0, -1.0]]))
    states = torch.tensor([[[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]]])
    assert q_values(states, goal)[0].tolist() == pytest.approx([1, 0, -1, 2**-0.5])


def test_the_filter_drops_at_the_first_low_token() -> None:
    values = [[0.1] * 8, [0.1] * 5 + [-0.1, 0.2, 0.3], [-0.9] * 5 + [0.1], [0.2, -0.5]]
    kept = q_filter(values)
    assert kept.kept == (0, 2, 3)  # early tokens cannot drop
    assert kept.cut == (8, 6, 6, 2)
    assert kept.saved == 2
    strict = q_filter(values, unjudged=0)
    assert (strict.kept, strict.cut, strict.saved) == ((0,), (8, 6, 1, 2), 7)


def test_where_all_would_be_dropped_all_are_kept() -> None:
    filtered = q_filter([[-1.0], [-1.0, 1.0]], unjudged=0)
    assert (filtered.kept, filtered.cut, filtered.saved) == ((0, 1), (1, 2), 0)
    assert q_filter([]).kept == ()
