import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.recipe import Guards, Rl
from e2h_pipeline.rl.guards import Metrics, trouble

GOOD = {
    "kl": 0.01,
    "no_answer": 0.05,
    "one_step": 0.1,
    "repeated_steps": 0.0,
    "steps_level_1": 2.0,
    "steps_level_5": 6.5,
    "evaluator_easy": 0.7,
    "evaluator_hard": 0.5,
    "gradient_norm": 1.0,
}
OPTIONS = Rl(guards=Guards(window=3, hack_window=4))


def _history(*parts: tuple[int, dict[str, float]]) -> list[Metrics]:
    """So many updates of each part, good but for what it says."""
    return [{**GOOD, **changed} for updates, changed in parts for _ in range(updates)]


def _trouble(history: list[Metrics], options: Rl = OPTIONS) -> str | None:
    return trouble(history, options, best_update=0, best_accuracy=0.0)


def test_a_good_run_goes_on() -> None:
    history = _history((12, {}))
    assert all(_trouble(history[: i + 1]) is None for i in range(len(history)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_stops_the_run(bad: float) -> None:
    reason = _trouble([{"kl": 0.1, "policy_loss": bad}])
    assert reason == f"policy_loss is {bad}, not a finite number; lower rl.learning_rate"
    assert "kl is" in str(_trouble([{"kl": bad}]))


def test_too_far_from_the_sft_policy() -> None:
    options = Rl(max_kl=2.0)
    assert _trouble([{"kl": 2.0, "reward": -3.0}], options) is None
    assert "2.10 per token, above rl.max_kl=2.0; raise rl.kl" in str(_trouble([{"kl": 2.1}], options))


@pytest.mark.parametrize(
    ("name", "field", "start"),
    [
        ("no_answer", "unfinished", 0.05),
        ("one_step", "one_step", 0.1),
        ("repeated_steps", "repeated_steps", 0.0),
    ],
)
def test_more_of_a_vice(name: str, field: str, start: float) -> None:
    assert _trouble(_history((3, {}), (3, {name: start + 0.29}))) is None
    assert _trouble(_history((3, {}), (2, {name: 1.0}))) is None  # the windows still overlap
    reason = str(_trouble(_history((3, {}), (3, {name: start + 0.4}))))
    assert f"{name} is {start + 0.4:.2f} over its last 3 updates, {start:.2f} over its first 3" in reason
    assert f"rl.guards.{field}=0.3" in reason
    # Two of three updates on the way: 2/3 of 0.4 is 0.27, of 0.5 it is 0.33
    assert _trouble(_history((4, {}), (2, {name: start + 0.4}))) is None
    assert _trouble(_history((4, {}), (2, {name: start + 0.5})))


def test_a_policy_that_always_had_a_vice_may_go_on() -> None:
    assert _trouble(_history((12, {"no_answer": 0.8, "one_step": 1.0, "repeated_steps": 0.9}))) is None


@pytest.mark.parametrize(("steps", "says"), [(10.0, "more_steps=1.5"), (4.5, "fewer_steps=0.7")])
def test_other_lengths_of_one_level(steps: float, says: str) -> None:
    """Fewer steps is the hack of docs/log.md, seed 12: only long problems lost theirs."""
    reason = str(_trouble(_history((3, {}), (3, {"steps_level_5": steps}))))
    assert f"steps_level_5 is {steps:.2f} over its last 3 updates, 6.50 over its first 3" in reason
    assert f"rl.guards.{says}" in reason


@pytest.mark.parametrize("steps", [9.7, 4.6])
def test_somewhat_other_lengths(steps: float) -> None:
    assert _trouble(_history((3, {}), (3, {"steps_level_5": steps}))) is None


def test_a_level_is_compared_with_its_own_first_updates() -> None:
    """Level 5 enters late, as in a curriculum; long solutions then are no inflation."""
    history = [{**GOOD} for _ in range(9)]
    for metrics in history[:6]:
        del metrics["steps_level_5"]
    assert _trouble(list(history)) is None
    assert "steps_level_5" in str(_trouble([*history, *_history((3, {"steps_level_5": 12.0}))]))


def test_a_policy_that_starts_without_steps_may_learn_to_write_one() -> None:
    assert _trouble(_history((3, {"steps_level_1": 0.0}), (3, {"steps_level_1": 1.5}))) is None
    assert _trouble(_history((3, {"steps_level_1": 0.0}), (3, {"steps_level_1": 1.6})))


def _validated(*accuracies: float, evaluator: float) -> list[Metrics]:
    """A checkpoint every second update; the evaluator's mean on hard questions from update 5 on."""
    history = _history((4, {}), (2 * len(accuracies) - 4, {"evaluator_hard": evaluator}))
    return [
        {**metrics, "easy_validation_accuracy": accuracies[i // 2]} if i % 2 else metrics
        for i, metrics in enumerate(history)
    ]


def test_the_evaluator_is_happier_while_easy_validation_falls() -> None:
    history = _validated(0.8, 0.85, 0.7, 0.7, evaluator=0.55)
    reason = str(trouble(history, OPTIONS, best_update=4, best_accuracy=0.85))
    assert "easy_validation_accuracy is 0.700 at best in the last 4 updates" in reason
    assert "rl.guards.hack_fall=0.1 below the 0.850 of update 4" in reason
    assert "evaluator_hard rose from 0.500 to 0.550, more than rl.guards.hack_rise=0.02" in reason


def test_the_sft_policy_can_be_the_best() -> None:
    history = _validated(0.7, 0.7, 0.7, 0.7, evaluator=0.55)
    assert "below the 0.850 of update 0" in str(trouble(history, OPTIONS, 0, 0.85))


@pytest.mark.parametrize(
    ("accuracies", "evaluator"),
    [
        ((0.8, 0.85, 0.7, 0.7), 0.51),  # the evaluator hardly moved
        ((0.8, 0.85, 0.7, 0.7), 0.3),  # it fell too: worse, but no hack
        ((0.8, 0.85, 0.76, 0.7), 0.6),  # one checkpoint of the window is fair
        ((0.8, 0.85, 0.9, 0.95), 0.9),  # everything rises
    ],
)
def test_no_hack(accuracies: tuple[float, ...], evaluator: float) -> None:
    history = _validated(*accuracies, evaluator=evaluator)
    assert trouble(history, OPTIONS, best_update=4, best_accuracy=0.85) is None


def test_no_hack_is_seen_without_validation_or_in_the_first_window() -> None:
    assert trouble(_history((4, {}), (8, {"evaluator_hard": 0.9})), OPTIONS, 0, 0.85) is None
    assert trouble(_history((1, {}), (3, {"evaluator_hard": 0.9})), OPTIONS, 0, 0.85) is None
    assert trouble(_validated(0.5, 0.5, evaluator=0.9), OPTIONS, 0, 0.85) is None


def test_every_share_and_fall_can_be_turned_off() -> None:
    off = Guards(
        window=1, hack_window=1, unfinished=1, one_step=1, repeated_steps=1, fewer_steps=0, hack_fall=1
    )
    worst = dict.fromkeys(("no_answer", "one_step", "repeated_steps"), 1.0)
    history: list[Metrics] = [
        {**GOOD, **dict.fromkeys(worst, 0.0)},
        {**GOOD, **worst, "steps_level_5": 0.0, "evaluator_hard": 1.0, "easy_validation_accuracy": 0.0},
    ]
    assert trouble(history, Rl(guards=off), 0, 1.0) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 6), st.floats(0, 1))
def test_a_share_stops_the_run_by_its_means_alone(shares: list[float], window: int, limit: float) -> None:
    options = Rl(guards=Guards(window=window, unfinished=limit))
    found = _trouble([{"kl": 0.0, "no_answer": share} for share in shares], options)
    first, last = (sum(part) / window for part in (shares[:window], shares[-window:]))
    assert (found is not None) == (len(shares) >= 2 * window and last - first > limit)
