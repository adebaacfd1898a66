from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.rl.online.advantages import (
    generalized_advantages,
    group_advantages,
    group_step_advantages,
    leave_one_out_advantages,
    masked_mean,
    rewards_to_go,
    whiten,
)

PROMPT, PAD = 2, 3
FOREIGN = 99.0  # a value in masked places, which must not be read


def _padded(rows: list[list[float]], length: int) -> torch.Tensor:
    """Rows between prompt and padding; both are filled with arbitrary numbers."""
    return torch.tensor(
        [[*[FOREIGN] * PROMPT, *row, *[FOREIGN] * (length - len(row) + PAD)] for row in rows],
        dtype=torch.double,
    )


def _mask(lengths: list[int], longest: int) -> torch.Tensor:
    return torch.tensor(
        [[*[0.0] * PROMPT, *[1.0] * n, *[0.0] * (longest - n + PAD)] for n in lengths], dtype=torch.double
    )


def test_advantages_by_hand() -> None:
    # gamma 0.9, lambda 0.5 delta_2 = 1 - 0.1 = 0.9; delta_1 = 0.5 + 0.9 * 0.1 - 0.4 = 0.19; delta_0
    # = 0.9 * 0.4 - 0.2 = 0.16 A_2 = 0.9; A_1 = 0.19 + 0.45 * 0.9 = 0.595; A_0 = 0.16 + 0.45 * 0.595
    # = 0.42775
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


# Groups


def test_group_advantages_by_hand() -> None:
    # first question: sums 1, 0, 2; mean 1, variance 2/3. Second: 3 and 1; mean 2, variance 1.
    rewards = _padded([[0.5, 0.5], [0.0], [0.0, 0.0, 2.0], [3.0], [0.0, 1.0]], 3)
    mask = _mask([2, 1, 3, 1, 2], 3)
    advantages = group_advantages(rewards, mask, torch.tensor([7, 7, 7, 2, 2]))
    spread = 1.5**0.5
    by_row = torch.tensor([0, -spread, spread, 1, -1], dtype=torch.double)
    assert torch.allclose(advantages, by_row[:, None] * mask, atol=1e-6)


def test_group_step_advantages_by_hand() -> None:
    # steps 1, 0 and 1, 1; mean 3/4, variance 3/16: normalized 1/sqrt 3 and -sqrt 3
    # the end-of-sequence token after the last step has a reward of its own
    rewards = _padded([[0.0, 1.0, 0.0, 9.0], [1.0, 0.0, 0.0, 1.0, 9.0]], 5)
    ends = _padded([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0, 0.0]], 5)
    advantages = group_step_advantages(rewards, ends, _mask([4, 5], 5), torch.tensor([0, 0]))
    high, low = 3**-0.5, -(3**0.5)
    first = [high + low, high + low, low, 0, 0]
    second = [2 * high, high, high, high, 0]
    assert advantages[0].tolist() == pytest.approx([0, 0, *first, 0, 0, 0], abs=1e-6)
    assert advantages[1].tolist() == pytest.approx([0, 0, *second, 0, 0, 0], abs=1e-6)


def test_a_step_without_reward_counts_in_the_group() -> None:
    rewards, ends = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    advantages = group_step_advantages(rewards, ends, torch.ones(2, 2), torch.tensor([0, 0]))
    assert advantages.tolist() == [pytest.approx([-1, -1]), pytest.approx([1, 1])]


def test_leave_one_out_by_hand() -> None:
    # mean reward per token of the other samples: (2 + 0) / (2 + 2), (1 + 0) / 5, (1 + 2) / 5
    rewards = _padded([[0.0, 0.0, 1.0], [0.0, 2.0], [0.0, 0.0]], 3)
    mask = _mask([3, 2, 2], 3)
    advantages = leave_one_out_advantages(rewards, mask, torch.zeros(3, dtype=torch.long))
    expected = [[1 - 1.5, 1 - 1.0, 1 - 0.5], [2 - 0.4, 2 - 0.2, 0.0], [-1.2, -0.6, 0.0]]
    for row, numbers in zip(advantages.tolist(), expected, strict=True):
        assert row == pytest.approx([0, 0, *numbers, 0, 0, 0])


def test_rewards_to_go_by_hand() -> None:
    assert rewards_to_go(torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]])).tolist() == [
        [3, 2, 2],
        [-1, -1, 0],
    ]


GROUPED = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=6)),
    min_size=1,
    max_size=8,
)


def _tensors(
    rows: list[tuple[int, list[tuple[float, bool]]]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, step ends, mask and groups."""
    longest = max(len(row) for _, row in rows)
    rewards = _padded([[reward for reward, _ in row] for _, row in rows], longest)
    ends = _padded([[float(end) for _, end in row] for _, row in rows], longest)
    mask = _mask([len(row) for _, row in rows], longest)
    return rewards, ends, mask, torch.tensor([group for group, _ in rows])


@settings(deadline=None)
@given(GROUPED)
def test_group_advantages_are_the_formulas(rows: list[tuple[int, list[tuple[float, bool]]]]) -> None:
    rewards, ends, mask, groups = _tensors(rows)
    by_row = group_advantages(rewards, mask, groups)
    by_step = group_step_advantages(rewards, ends, mask, groups)
    for i, (group, row) in enumerate(rows):
        sums = [sum(r for r, _ in other) for g, other in rows if g == group]
        steps = [r for g, other in rows if g == group for r, end in other if end]
        expected = _normalized(sum(r for r, _ in row), sums)
        for t in range(len(row)):
            to_come = sum(_normalized(r, steps) for r, end in row[t:] if end)
            assert by_row[i, PROMPT + t].item() == pytest.approx(expected, abs=1e-6)
            assert by_step[i, PROMPT + t].item() == pytest.approx(to_come, abs=1e-6)
    for advantages in (by_row, by_step):
        assert not advantages[mask == 0].any()


def _normalized(value: float, group: list[float]) -> float:
    mean = sum(group) / len(group)
    return (value - mean) / (sum((other - mean) ** 2 for other in group) / len(group) + 1e-8) ** 0.5


@settings(deadline=None)
@given(GROUPED, NUMBERS)
def test_a_constant_per_token_is_no_advantage(
    rows: list[tuple[int, list[tuple[float, bool]]]], constant: float
) -> None:
    """The places of step ends are not an argument."""
    rewards, _, mask, groups = _tensors(rows)
    advantages = leave_one_out_advantages(rewards, mask, groups)
    assert torch.allclose(leave_one_out_advantages(rewards + constant, mask, groups), advantages, atol=1e-9)
    assert not advantages[mask == 0].any()


@settings(deadline=None)
@given(GROUPED)
def test_who_is_alone_learns_nothing(rows: list[tuple[int, list[tuple[float, bool]]]]) -> None:
    rewards, _, mask, _ = _tensors(rows)
    alone = torch.arange(len(rows))
    assert not leave_one_out_advantages(rewards, mask, alone).any()
    assert group_advantages(rewards, mask, alone).abs().max() < 1e-6


@settings(deadline=None)
@given(GROUPED, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_names_of_groups_do_not_matter(
    rows: list[tuple[int, list[tuple[float, bool]]]], random: Random
) -> None:
    rewards, ends, mask, groups = _tensors(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    for advantages in (
        group_advantages,
        lambda r, m, g: group_step_advantages(r, ends if r is rewards else ends[order], m, g),
        leave_one_out_advantages,
    ):
        found = advantages(rewards[order], mask[order], 90 - 7 * groups[order])
        assert torch.allclose(found, advantages(rewards, mask, groups)[order], atol=1e-9)
