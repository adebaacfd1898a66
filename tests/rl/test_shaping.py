import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.rl.shaping import running_minimum, terminal_reward, without_steps

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
BOUND = st.floats(0.01, 1)
BONUS = st.floats(0, 1)


def test_the_running_minimum_by_hand() -> None:
    # bound 0.5: 0.9 is as good as 0.5; 0.3 falls by 0.2; 0.4 is above the minimum; 0.1 falls by 0.2
    assert running_minimum([0.9, 0.3, 0.4, 0.1], 0.5, 0) == pytest.approx([0, -0.2, 0, -0.2])
    assert running_minimum([0.9, 0.3, 0.4, 0.1], 0.5, 0.4) == pytest.approx([0.1, -0.1, 0.1, -0.1])
    assert running_minimum([0.0], 0.5, 0.25) == pytest.approx([-0.25])
    assert running_minimum([], 0.5, 0.25) == []


@given(SCORES, BOUND, BONUS)
def test_rewards_telescope_and_are_bounded(scores: list[float], bound: float, bonus: float) -> None:
    rewards = running_minimum(scores, bound, bonus)
    assert len(rewards) == len(scores)
    assert sum(rewards) == pytest.approx(min(bound, min(scores)) - bound + bonus, abs=1e-9)
    assert -bound + bonus - 1e-9 <= sum(rewards) <= bonus + 1e-9
    share = bonus / len(scores)
    assert all(-bound - 1e-9 <= reward - share <= 1e-9 for reward in rewards)


@given(SCORES, BOUND, BONUS, st.floats(0, 1), st.integers(0, 8))
def test_one_more_step_never_earns_more(
    scores: list[float], bound: float, bonus: float, extra: float, at: int
) -> None:
    """Cutting a step in two, repeating one, adding praise: the sum stays, or falls with the worst step."""
    before = sum(running_minimum(scores, bound, bonus))
    at = min(at, len(scores))
    after = sum(running_minimum([*scores[:at], extra, *scores[at:]], bound, bonus))
    assert after <= before + 1e-9
    if extra >= min(bound, min(scores)):
        assert after == pytest.approx(before, abs=1e-9)


@given(SCORES, BOUND, BONUS)
def test_order_moves_rewards_between_steps_but_not_their_sum(
    scores: list[float], bound: float, bonus: float
) -> None:
    assert sum(running_minimum(scores[::-1], bound, bonus)) == pytest.approx(
        sum(running_minimum(scores, bound, bonus)), abs=1e-9
    )


@given(SCORES, BOUND, BONUS)
def test_writing_nothing_never_beats_writing_something_wrong(
    scores: list[float], bound: float, bonus: float
) -> None:
    assert without_steps(bound) <= sum(running_minimum(scores, bound, bonus)) + 1e-9


@pytest.mark.parametrize(
    ("right", "answered", "reward"),
    [
        (True, True, 1.5),
        (False, True, 0.0),
        (None, True, 0.25),
        (True, False, -2.0),
        (False, False, -2.0),
        (None, False, -2.0),
    ],
)
def test_terminal_rewards(right: bool | None, answered: bool, reward: float) -> None:
    found = terminal_reward(
        right=right, answered=answered, outcome_reward=1.5, hard_constant=0.25, unfinished_penalty=2.0
    )
    assert found == reward
