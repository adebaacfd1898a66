import math
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.recipe import OnlineRl
from e2h_pipeline.rl.shaping import (
    SCHEMES,
    clip,
    delta,
    first_error,
    running_minimum,
    running_product,
    soft_minimum,
    step_rewards,
    strict_minimum,
    terminal_reward,
    total,
    without_steps,
)

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
OPTIONS = st.builds(
    OnlineRl,
    shaping=st.sampled_from(sorted(SCHEMES)),
    upper_bound=st.floats(0.01, 1),
    soft_minimum_temperature=st.floats(0.01, 10),
    error_threshold=st.floats(0.01, 1),
    prefix_reward=st.floats(0, 1),
    step_bonus=st.floats(0, 1),
)

HAND = [0.9, 0.3, 0.4, 0.1]
BOUND = OnlineRl().upper_bound


# Worked by hand


def test_the_running_minimum_by_hand() -> None:
    # bound 0.5: 0.9 counts as 0.5; 0.3 falls by 0.2; 0.4 is above the minimum; 0.1 falls by 0.2
    assert running_minimum(HAND, 0.5) == pytest.approx([0, -0.2, 0, -0.2])


def test_the_running_product_by_hand() -> None:
    # products 0.9, 0.45, 0.405, 0.081; bound 0.5: falls of 0, 0.05, 0.045, 0.324
    assert running_product([0.9, 0.5, 0.9, 0.2], 0.5) == pytest.approx([0, -0.05, -0.045, -0.324])


def test_the_soft_minimum_by_hand() -> None:
    # s = 0.5, -0.5, temperature 1 / ln 3: weights 3^-0.5 to 3^0.5, that is 1/4 and 3/4
    assert soft_minimum([0.75, 0.25], 1 / math.log(3)) == pytest.approx([0.125, -0.375])
    assert soft_minimum([1.0, 0.0], 0.1) == pytest.approx([0, -1], abs=1e-8)


def test_the_strict_minimum_by_hand() -> None:
    # s = 0.8, -0.4, -0.2, -0.8; the minimum from each step on is -0.8, then 0
    assert strict_minimum(HAND) == pytest.approx([0, 0, 0, -0.8])
    # s = -0.8, 0.8, 0.2; the minima from each step on are -0.8, 0.2, 0.2
    assert strict_minimum([0.1, 0.9, 0.6]) == pytest.approx([-1.0, 0, 0.2])


def test_delta_by_hand() -> None:
    assert delta(HAND) == pytest.approx([0.6, -0.1, 0.3, 0.1])


def test_clip_by_hand() -> None:
    assert clip(HAND, 0.5) == pytest.approx([0, -0.2, -0.1, -0.4])


@pytest.mark.parametrize(
    ("scores", "rewards"),
    [
        ([0.9, 0.8, 0.5], [0, 0, 1]),  # no error: the threshold itself is right
        ([0.9, 0.8, 0.4, 0.9], [0, 0.25, 0, 0]),  # the third step is the first error
        ([0.4, 0.8], [0, 0]),
        ([0.7], [1]),
    ],
)
def test_the_first_error_by_hand(scores: list[float], rewards: list[float]) -> None:
    assert first_error(scores, 0.5, 0.25) == rewards


def test_the_bonus_is_shared_by_all_steps() -> None:
    assert step_rewards(HAND, OnlineRl(step_bonus=0.4)) == pytest.approx([0.1, -0.1, 0.1, -0.1])
    assert step_rewards(HAND, OnlineRl(shaping="sum", step_bonus=0.4)) == pytest.approx([1.0, 0.4, 0.5, 0.2])


def test_a_recipe_can_name_every_scheme() -> None:
    assert set(get_args(OnlineRl.model_fields["shaping"].annotation)) == set(SCHEMES)


@pytest.mark.parametrize("name", SCHEMES)
def test_no_scores_no_rewards(name: str) -> None:
    assert step_rewards([], OnlineRl.model_validate({"shaping": name})) == []


# The numbers of released code, run once


@pytest.mark.parametrize(
    ("scheme", "scores", "rewards"),
    [
        ("running_minimum", HAND, [0.062499984, -0.137500016, 0.062499984, -0.137500016]),
        ("running_product", HAND, [0.062499984, -0.167500016, -0.099500016, -0.034700016]),
        ("running_minimum", [0.95, 0.8, 0.7], [0.083333306] * 3),
        ("running_product", [0.95, 0.8, 0.7], [0.083333306] * 3),
    ],
)
def test_the_papers_rewards(scheme: str, scores: list[float], rewards: list[float]) -> None:
    """Edward-Sun/easy-to-hard at cf1d6d8, math_utils/math_rl_utils.py, shape_math_process_rewards:
    rewards of steps, "min" and "prod", before the code splits each over two newline tokens. Its
    bonus is 0.25 / (steps + 1e-6)."""
    options = OnlineRl.model_validate({"shaping": scheme, "upper_bound": 0.5, "step_bonus": 0.25})
    assert step_rewards(scores, options) == pytest.approx(rewards, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "temperature", "rewards"),
    [
        (HAND, 0.1, [8.819418547e-08, -7.177013130e-03, -4.856515524e-04, -7.837032793e-01]),
        (HAND, 1.0, [0.066714305, -0.110749647, -0.045337071, -0.330438117]),
        ([0.8, 0.75, 0.7], 0.1, [5.401834390e-02, 1.223642355e-01, 2.660963823e-01]),
        ([0.8, 0.75, 0.7], 1.0, [0.180365763, 0.166112497, 0.146866160]),
    ],
)
def test_the_soft_minimum_of_pure(scores: list[float], temperature: float, rewards: list[float]) -> None:
    """CJReinforce/PURE at a93a4bf, openrlhf/utils/utils.py,
    turn_process_reward_logits_to_reward."""
    assert soft_minimum(scores, temperature) == pytest.approx(rewards, abs=1e-6)


# Sums and bounds


def _sum_of(scores: list[float], options: OnlineRl) -> float | None:
    """The closed form in a scheme's docstring, without the bonus; None if it only has bounds."""
    bound = options.upper_bound
    wrong = [score < options.error_threshold for score in scores]
    return {
        "running_minimum": min(bound, *scores) - bound,
        "running_product": min(bound, math.prod(scores)) - bound,
        "strict_minimum": 2 * min(scores) - 1,
        "delta": scores[0],
        "clip": -sum(max(0.0, bound - score) for score in scores),
        "first_error": 1.0 if not any(wrong) else 0.0 if wrong[0] else options.prefix_reward,
        "sum": sum(scores),
    }.get(options.shaping)


def _bounds(scores: list[float], options: OnlineRl) -> tuple[float, float]:
    """Bounds of the sum, without the bonus."""
    signed = [2 * score - 1 for score in scores]
    return {
        "running_minimum": (-options.upper_bound, 0.0),
        "running_product": (-options.upper_bound, 0.0),
        "soft_minimum": (min(signed), sum(signed) / len(signed)),
        "strict_minimum": (-1.0, 1.0),
        "delta": (0.0, 1.0),
        "clip": (-options.upper_bound * len(scores), 0.0),
        "first_error": (0.0, 1.0),
        "sum": (0.0, float(len(scores))),
    }[options.shaping]


@given(SCORES, OPTIONS)
def test_rewards_sum_to_what_is_stated_and_are_bounded(scores: list[float], options: OnlineRl) -> None:
    rewards = step_rewards(scores, options)
    assert len(rewards) == len(scores)
    assert all(map(math.isfinite, rewards))
    process = sum(rewards) - options.step_bonus
    if (stated := _sum_of(scores, options)) is not None:
        assert process == pytest.approx(stated, abs=1e-9)
    low, high = _bounds(scores, options)
    assert low - 1e-9 <= process <= high + 1e-9


@given(SCORES, st.floats(0.01, 1))
def test_the_paper_never_pays_a_step(scores: list[float], bound: float) -> None:
    for rewards in (running_minimum(scores, bound), running_product(scores, bound), clip(scores, bound)):
        assert all(-bound - 1e-9 <= reward <= 0 for reward in rewards)


@given(SCORES)
def test_rewards_to_come_are_the_values_of_the_source(scores: list[float]) -> None:
    for i in range(len(scores)):
        assert sum(strict_minimum(scores)[i:]) == pytest.approx(2 * min(scores[i:]) - 1, abs=1e-9)
        assert sum(delta(scores)[i:]) == pytest.approx(scores[i], abs=1e-9)


@given(SCORES)
def test_a_cold_soft_minimum_is_the_minimum_and_a_hot_one_the_mean(scores: list[float]) -> None:
    signed = [2 * score - 1 for score in scores]
    assert sum(soft_minimum(scores, 1e-4)) == pytest.approx(min(signed), abs=1e-3)
    assert sum(soft_minimum(scores, 1e6)) == pytest.approx(sum(signed) / len(signed), abs=1e-5)


# More steps


SPLITS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "the worse scores as the step did": lambda score, u: (score, score + u * (1 - score)),
    "the product is the step's score": lambda score, u: (score ** (1 - u), score**u),
    "both score as the step did": lambda score, u: (score, score),
    "the other is above the bound": lambda score, u: (score, BOUND + u * (1 - BOUND)),
}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("running_minimum", "the worse scores as the step did"),
        ("running_minimum", "both score as the step did"),
        ("running_product", "the product is the step's score"),
        ("strict_minimum", "the worse scores as the step did"),
        ("strict_minimum", "both score as the step did"),
        ("delta", "the worse scores as the step did"),
        ("delta", "both score as the step did"),
        ("clip", "the other is above the bound"),
        ("first_error", "both score as the step did"),
    ],
)
@given(scores=SCORES, at=st.integers(0, 7), u=st.floats(0, 1))
def test_a_step_cut_in_two_changes_no_sum_where_that_is_promised(
    name: str, split: str, scores: list[float], at: int, u: float
) -> None:
    options = OnlineRl.model_validate({"shaping": name})
    at = min(at, len(scores) - 1)
    halves = SPLITS[split](scores[at], u)
    cut = [*scores[:at], *halves, *scores[at + 1 :]]
    assert sum(step_rewards(cut, options)) == pytest.approx(sum(step_rewards(scores, options)), abs=1e-9)


@pytest.mark.parametrize("name", ["running_product", "soft_minimum", "clip", "sum"])
def test_where_it_is_not_promised_it_does_not_hold(name: str) -> None:
    options = OnlineRl.model_validate({"shaping": name})
    whole, cut = (sum(step_rewards(scores, options)) for scores in ([0.45, 0.6], [0.45, 0.6, 0.6]))
    wrong = sum(step_rewards([0.45, 0.45, 0.6], options))
    assert whole != pytest.approx(cut) or whole != pytest.approx(wrong)


@given(SCORES, OPTIONS, st.floats(0, 1), st.integers(0, 8))
def test_one_more_step_never_earns_more(
    scores: list[float], options: OnlineRl, extra: float, at: int
) -> None:
    """Repeating a step or adding praise: only the control rewards it, or a first step where the
    first one counts."""
    before = sum(step_rewards(scores, options))
    at = min(at, len(scores))
    more = sum(step_rewards([*scores[:at], extra, *scores[at:]], options))
    if options.shaping in {"running_minimum", "running_product", "strict_minimum", "clip"}:
        assert more <= before + 1e-9
    if options.shaping == "running_minimum" and extra >= min(options.upper_bound, *scores):
        assert more == pytest.approx(before, abs=1e-9)
    if options.shaping == "delta" and at > 0:
        assert more == pytest.approx(before, abs=1e-9)
    if options.shaping == "first_error" and at > 0:
        assert more <= before + 1e-9
    if options.shaping == "sum":
        assert more == pytest.approx(before + extra, abs=1e-9)


@given(SCORES, st.floats(0.01, 1))
def test_order_moves_rewards_between_steps_but_not_their_sum(scores: list[float], bound: float) -> None:
    for scheme in (
        lambda some: running_minimum(some, bound),
        lambda some: clip(some, bound),
        strict_minimum,
        total,
    ):
        assert sum(scheme(scores[::-1])) == pytest.approx(sum(scheme(scores)), abs=1e-9)


# No steps


@pytest.mark.parametrize(
    ("name", "worst"),
    [
        ("running_minimum", -0.5),
        ("running_product", -0.5),
        ("soft_minimum", -1.0),
        ("strict_minimum", -1.0),
        ("delta", 0.0),
        ("clip", -0.5),
        ("first_error", 0.0),
        ("sum", 0.0),
    ],
)
def test_a_solution_without_steps_by_hand(name: str, worst: float) -> None:
    assert without_steps(OnlineRl.model_validate({"shaping": name})) == worst


@given(SCORES, OPTIONS)
def test_writing_nothing_never_beats_writing_something_wrong(scores: list[float], options: OnlineRl) -> None:
    """Any single step. Except under clip, where every wrong step costs, also any solution."""
    for some in [[score] for score in scores] + ([scores] if options.shaping != "clip" else []):
        assert without_steps(options) <= sum(step_rewards(some, options)) - options.step_bonus + 1e-9


def test_under_clip_alone_nothing_beats_two_wrong_steps() -> None:
    """Without the bonus: two steps of score 0 cost twice as much as no step; two of .3 cost .4,
    which is less."""
    for name in SCHEMES:
        options = OnlineRl.model_validate({"shaping": name, "step_bonus": 0.0})
        nothing = without_steps(options)
        assert (nothing > sum(step_rewards([0.0, 0.0], options))) == (name == "clip")
        assert nothing <= sum(step_rewards([0.3, 0.3], options))


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
    options = OnlineRl(outcome_reward=1.5, hard_constant=0.25, unfinished_penalty=2.0)
    assert terminal_reward(right, answered, options) == reward
