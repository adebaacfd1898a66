import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.sweeps.learning_curves import (
    Curve,
    Median,
    Never,
    Predicted,
    normal_below,
    predict_end,
    replay,
)


def family(runs: int, seed: int = 0, noise: float = 0.01) -> list[Curve]:
    """Curves that rise to their own limits, which depend partly on a knob."""
    rng = random.Random(seed)
    found = []
    for _ in range(runs):
        limit = rng.uniform(0.3, 0.9)
        values = [limit * (1 - math.exp(-(i + 1) / 3)) + rng.gauss(0, noise) for i in range(10)]
        found.append(Curve(tuple(values), (limit + rng.gauss(0, 0.1),)))
    return found


def test_an_end_is_predicted_from_a_beginning() -> None:
    curves = family(60)
    errors = []
    for i, curve in enumerate(curves):
        told, _ = predict_end(Curve(curve.values[:4], curve.knobs), curves[:i] + curves[i + 1 :])
        errors.append(told - curve.end)
    explained = 1 - np.var(errors) / np.var([curve.end for curve in curves])
    assert explained > 0.9


def test_the_spread_is_that_of_runs_left_out() -> None:
    """Refitted without each run in turn, errors have the stated spread, except for the ridge, which
    counts rows."""
    curves = family(40, noise=0.05)
    _, spread = predict_end(Curve(curves[0].values[:3], curves[0].knobs), curves)
    errors = [
        predict_end(Curve(c.values[:3], c.knobs), curves[:i] + curves[i + 1 :])[0] - c.end
        for i, c in enumerate(curves)
    ]
    assert spread == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=0.02)


def test_a_hopeless_run_is_given_up_and_a_good_one_is_not() -> None:
    ended = family(30)
    bad = Curve((0.02, 0.04, 0.05, 0.06), (0.1,))
    good = Curve((0.27, 0.47, 0.6, 0.7), (0.95,))
    for rule in (Predicted(), Median()):
        assert rule.hopeless(bad, ended)
        assert not rule.hopeless(good, ended)
    assert not Never().hopeless(bad, ended)


def test_nothing_is_given_up_before_enough_runs_ended() -> None:
    bad = Curve((0.0, 0.0, 0.0), (0.0,))
    assert not Predicted(least=20).hopeless(bad, family(19))
    assert Predicted(least=20).hopeless(bad, family(20))
    assert not Median(least=5).hopeless(bad, family(4))
    assert not Median().hopeless(Curve((0.0,)), family(30))  # one point is not a curve


def test_the_median_rule_by_hand() -> None:
    """Means up to the second checkpoint: 1/4, 3/8, 1/2; a best value of .37 is below their median,
    3/8 is not."""
    ended = [Curve((1 / 8, 3 / 8, 1)), Curve((1 / 4, 1 / 2, 1)), Curve((3 / 8, 5 / 8, 1))]
    assert Median(least=3).hopeless(Curve((0.1, 0.37)), ended)
    assert not Median(least=3).hopeless(Curve((0.1, 3 / 8)), ended)


def test_a_replay_by_hand() -> None:
    """The fourth run is stopped after its second of three checkpoints: 11 of 12 are run, and it was
    the best run."""
    curves = [Curve((0.3, 0.5, 0.6))] * 3 + [Curve((0.1, 0.2, 0.9))]
    found = replay(curves, Median(least=3))
    assert found.saved == pytest.approx(1 / 12)
    assert found.regret == pytest.approx(0.3)
    assert found.best_lost
    assert replay(curves, Never()) == replay(curves[::-1], Never())
    assert replay(curves, Never()).saved == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_what_is_saved_and_lost_is_bounded(runs: int, seed: int) -> None:
    curves = family(runs, seed)
    for rule in (Never(), Median(least=3), Predicted(least=5)):
        found = replay(curves, rule)
        assert 0 <= found.saved < 1
        assert found.regret >= 0
        assert found.best_lost == (found.regret > 0)


def test_the_normal_distribution_by_hand() -> None:
    assert normal_below(0, 1) == 0.5
    assert normal_below(1.959964, 1) == pytest.approx(0.975, abs=1e-6)
    assert normal_below(-0.1, 0) == 0.0
