import numpy as np
import pytest

from e2h_pipeline.statistics.bootstrap import Bootstrap, mean_intervals, ratio_intervals


def test_interval_of_a_proportion_matches_the_normal_one() -> None:
    # 200 of 500: standard error sqrt(.4 * .6 / 500) = .0219, so .4 +- .043
    values = np.array([1.0] * 200 + [0.0] * 300)[:, None]
    found = mean_intervals(values, Bootstrap(4000, 0.95, 1))
    assert found.mean[0] == pytest.approx(0.4)
    assert found.low[0] == pytest.approx(0.357, abs=0.004)
    assert found.high[0] == pytest.approx(0.443, abs=0.004)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    worlds = rng.random((80, 300)) < 0.3  # 300 experiments over the same 80 problems' draws
    found = mean_intervals(worlds, Bootstrap(500, 0.9, 0))
    covered = np.mean((found.low <= 0.3) & (found.high >= 0.3))
    assert 0.85 <= covered <= 0.95


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    first = (rng.random(300) < 0.5).astype(float)
    second = np.where(rng.random(300) < 0.1, 0.0, first)
    found = mean_intervals(np.column_stack([first, second, first - second]), Bootstrap(500))
    width = found.high - found.low
    assert width[2] < width[0] / 2
    assert found.mean[2] == pytest.approx(found.mean[0] - found.mean[1])


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).random((50, 2))
    one, two = (mean_intervals(values, Bootstrap(200, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(one.low, two.low)
    assert not np.array_equal(one.low, mean_intervals(values, Bootstrap(200, seed=4)).low)


def test_no_problems_is_an_error() -> None:
    with pytest.raises(ValueError, match="no problems"):
        mean_intervals(np.zeros((0, 1)), Bootstrap(100))


def test_ratio_weighs_problems_by_their_items() -> None:
    estimate, low, high = ratio_intervals(np.array([1.0, 9.0]), np.array([2, 10]), Bootstrap(300))
    assert estimate == pytest.approx(10 / 12)
    assert low == pytest.approx(0.5) and high == pytest.approx(0.9)
