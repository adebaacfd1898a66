import numpy as np
import pytest

from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.calibration import calibration_error, slope

BOOTSTRAP = Bootstrap(400)


def test_calibration_error_worked_numbers() -> None:
    # Bin [.9, 1]: scores .9 and 1, one right: gap |.95 - .5| = .45, two of three items. Bin [.2,
    # .3): .2, wrong.
    scores, right = np.array([0.9, 1.0, 0.2]), np.array([True, False, False])
    value, low, high = calibration_error(scores, right, np.arange(3), BOOTSTRAP)
    assert value == pytest.approx((0.9 + 0.2) / 3)
    assert low <= value <= high
    with pytest.raises(ValueError, match="no items"):
        calibration_error(scores[:0], right[:0], np.arange(0), BOOTSTRAP)


def test_honest_scores_are_nearly_calibrated_and_sure_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    right, problems = rng.random(20_000) < scores, np.arange(20_000) // 50
    value, low, high = calibration_error(scores, right, problems, BOOTSTRAP)
    assert low < high < 0.03 and value < 0.02
    # Claims of 1 where scores / 2 + 1/2 is the truth: a gap of a quarter.
    value, low, high = calibration_error(np.ones(20_000), rng.random(20_000) < 0.75, problems, BOOTSTRAP)
    assert low < 0.25 < high and value == pytest.approx(0.25, abs=0.01)


def test_slope_worked_numbers() -> None:
    # exactly y = .9 - .1 x
    x = np.array([1, 2, 3, 1, 2])
    found = slope(x, 0.9 - 0.1 * x, np.array([0, 0, 0, 1, 1]), BOOTSTRAP)
    assert found == pytest.approx((-0.1, -0.1, -0.1))
    assert slope(np.array([2, 2]), np.array([0.1, 0.9]), np.arange(2), BOOTSTRAP) is None
    assert slope(x[:0], np.zeros(0), x[:0], BOOTSTRAP) is None


def test_slope_interval_covers_and_is_over_problems() -> None:
    rng = np.random.default_rng(1)
    problems = np.repeat(np.arange(60), 20)
    x = np.tile(np.arange(20), 60)
    y = 0.5 - 0.01 * x + np.repeat(rng.normal(0, 0.2, 60), 20) + rng.normal(0, 0.1, 1200)
    found = slope(x, y, problems, BOOTSTRAP)
    assert found is not None
    assert found[1] < -0.01 < found[2] < 0
    assert found[0] == pytest.approx(np.polyfit(x, y, 1)[0])
