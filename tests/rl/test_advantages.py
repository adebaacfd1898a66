import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.rl.advantages import generalized_advantages, masked_mean, whiten

PROMPT, PAD = 2, 3
FOREIGN = 99.0  # stands where nobody may look


def _padded(rows: list[list[float]], length: int) -> torch.Tensor:
    """Rows behind a prompt, before padding; both full of foreign numbers."""
    return torch.tensor(
        [[*[FOREIGN] * PROMPT, *row, *[FOREIGN] * (length - len(row) + PAD)] for row in rows],
        dtype=torch.double,
    )


def _mask(lengths: list[int], longest: int) -> torch.Tensor:
    return torch.tensor(
        [[*[0.0] * PROMPT, *[1.0] * n, *[0.0] * (longest - n + PAD)] for n in lengths], dtype=torch.double
    )


def test_advantages_by_hand() -> None:
    # gamma 0.9, lambda 0.5
    # delta_2 = 1 - 0.1 = 0.9; delta_1 = 0.5 + 0.9 * 0.1 - 0.4 = 0.19; delta_0 = 0.9 * 0.4 - 0.2 = 0.16
    # A_2 = 0.9; A_1 = 0.19 + 0.45 * 0.9 = 0.595; A_0 = 0.16 + 0.45 * 0.595 = 0.42775
    rewards, values = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.2, 0.4, 0.1]])
    advantages, returns = generalized_advantages(rewards, values, torch.ones(1, 3), 0.9, 0.5)
    assert advantages[0].tolist() == pytest.approx([0.42775, 0.595, 0.9])
    assert returns[0].tolist() == pytest.approx([0.62775, 0.995, 1.0])


def test_prompt_and_padding_change_nothing() -> None:
    rewards, values = _padded([[0.0, 0.5, 1.0]], 3), _padded([[0.2, 0.4, 0.1]], 3)
    mask = _mask([3], 3)
    advantages, returns = generalized_advantages(rewards, values, mask, 0.9, 0.5)
    assert advantages[0].tolist() == pytest.approx([0, 0, 0.42775, 0.595, 0.9, 0, 0, 0])
    assert returns[0].tolist() == pytest.approx([0, 0, 0.62775, 0.995, 1.0, 0, 0, 0])


NUMBERS = st.floats(-2, 2)
ROWS = st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(deadline=None)
@given(ROWS, st.sampled_from([0.5, 0.97, 1.0]), st.sampled_from([0.0, 0.6, 1.0]))
def test_advantages_are_the_sum_of_the_formula(
    rows: list[list[tuple[float, float]]], gamma: float, lam: float
) -> None:
    longest = max(map(len, rows))
    rewards = _padded([[r for r, _ in row] for row in rows], longest)
    values = _padded([[v for _, v in row] for row in rows], longest)
    mask = _mask([len(row) for row in rows], longest)
    advantages, returns = generalized_advantages(rewards, values, mask, gamma, lam)
    for i, row in enumerate(rows):
        after = [v for _, v in row[1:]] + [0.0]
        deltas = [r + gamma * nxt - v for (r, v), nxt in zip(row, after, strict=True)]
        for t, (_, value) in enumerate(row):
            expected = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
            assert advantages[i, PROMPT + t].item() == pytest.approx(expected, abs=1e-9)
            assert returns[i, PROMPT + t].item() == pytest.approx(expected + value, abs=1e-9)
    assert not advantages[mask == 0].any()
    assert not returns[mask == 0].any()


def test_with_lambda_and_gamma_one_returns_are_the_rewards_to_come() -> None:
    rewards, values = torch.tensor([[0.1, -0.2, 0.5]]), torch.tensor([[3.0, -1.0, 2.0]])
    _, returns = generalized_advantages(rewards, values, torch.ones(1, 3), 1.0, 1.0)
    assert returns[0].tolist() == pytest.approx([0.4, 0.3, 0.5])


def test_masked_mean() -> None:
    assert masked_mean(torch.tensor([1.0, 2.0, FOREIGN]), torch.tensor([1.0, 1.0, 0.0])).item() == 1.5
    assert masked_mean(torch.tensor([FOREIGN]), torch.tensor([0.0])).item() == 0.0


def test_whitening_by_hand() -> None:
    values, mask = (
        torch.tensor([[1.0, 3.0, FOREIGN], [FOREIGN, 5.0, 7.0]]),
        torch.tensor([[1.0, 1, 0], [0, 1, 1]]),
    )
    # mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    white = whiten(values, mask)
    scale = 5**0.5
    assert white.flatten().tolist() == pytest.approx([-3 / scale, -1 / scale, 0, 0, 1 / scale, 3 / scale])


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=12), st.integers(0, 9))
def test_padding_has_no_say_in_whitening(numbers: list[float], padding: int) -> None:
    values = torch.tensor([[*numbers, *[FOREIGN] * padding]], dtype=torch.double)
    mask = torch.tensor([[1.0] * len(numbers) + [0.0] * padding], dtype=torch.double)
    white = whiten(values, mask)
    alone = whiten(torch.tensor([numbers], dtype=torch.double), torch.ones(1, len(numbers)).double())
    assert white[0, : len(numbers)].tolist() == pytest.approx(alone[0].tolist())
    assert not white[0, len(numbers) :].any()
    assert white.sum().item() == pytest.approx(0, abs=1e-6)


def test_equal_values_whiten_to_zero_and_not_to_nan() -> None:
    assert whiten(torch.full((1, 3), 2.0), torch.ones(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(torch.full((1, 3), 2.0), torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
