import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.statistics import ranking as ranking_metrics
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.ranking import (
    auroc,
    ranking_quality,
    reliability,
    resampled_auroc,
    win_matrix,
)


def brute_force(scores: np.ndarray, right: np.ndarray) -> float | None:
    pairs = [(a > b) + (a == b) / 2 for a in scores[right] for b in scores[~right]]
    return float(np.mean(pairs)) if pairs else None


items = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25)


@given(items)
def test_auroc_equals_counting_pairs(rows: list[tuple[int, bool, int]]) -> None:
    scores, right = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows])
    assert auroc(scores, right) == pytest.approx(brute_force(scores, right))


def test_auroc_worked_number() -> None:
    # Right .9 .4, wrong .5 .4: wins 2 + (0 + 1/2) of 4 pairs.
    scores, right = np.array([0.9, 0.4, 0.5, 0.4]), np.array([True, True, False, False])
    assert auroc(scores, right) == pytest.approx(2.5 / 4)
    assert auroc(np.array([1.0]), np.array([True])) is None


@settings(max_examples=50, deadline=None)
@given(items, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_win_matrix_gives_the_auroc_of_any_resample(
    rows: list[tuple[int, bool, int]], drawn: list[int]
) -> None:
    scores, right = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows])
    cluster = np.array([r[2] for r in rows])
    wins, positives, negatives = win_matrix(scores, right, cluster, 4)
    # Each drawn copy of a problem counts as its own problem; copies are not compared with each
    # other.
    copies = [(c, cluster == c) for c, times in enumerate(drawn) for _ in range(times)]
    compared = [
        (a > b) + (a == b) / 2
        for i, (c, first) in enumerate(copies)
        for j, (d, second) in enumerate(copies)
        if i == j or c != d
        for a in scores[first & right]
        for b in scores[second & ~right]
    ]
    with np.errstate(invalid="ignore"):
        found = resampled_auroc(wins, positives, negatives, np.array([drawn], dtype=float))[0]
    np.testing.assert_allclose(found, np.mean(compared) if compared else np.nan)


def test_quantile_bins_stay_close_to_exact() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(20_000) < 0.7
    scores = rng.normal(right * 1.0, 1.0)
    wins, positives, negatives = win_matrix(scores, right, rng.integers(0, 20, 20_000), 20)
    binned = wins.sum() / (positives.sum() * negatives.sum())
    assert binned == pytest.approx(auroc(scores, right), abs=1 / ranking_metrics._BINS)


def test_minus_infinity_is_a_score_like_others() -> None:
    scores = np.concatenate([np.full(3000, -np.inf), np.arange(3000.0)])
    right = np.arange(6000) >= 2000
    wins, positives, negatives = win_matrix(scores, right, np.zeros(6000, dtype=int), 1)
    assert wins.sum() / (positives.sum() * negatives.sum()) == pytest.approx((3000 + 500) / 4000)


def test_interval_and_pairs_within_problems() -> None:
    # Scores rank well within each problem; different score levels of problems spoil the overall
    # ranking.
    problems = np.repeat(np.arange(40), 10)
    right = np.tile([True] * 5 + [False] * 5, 40)
    scores = right * 0.5 + problems
    quality = ranking_quality(scores, right, problems, Bootstrap(300))
    assert quality.within == pytest.approx((1.0, 1.0, 1.0))
    assert quality.overall is not None
    value, low, high = quality.overall
    assert value == pytest.approx(0.5125) and low == pytest.approx(value, abs=0.001) and high >= value


def test_one_class_has_no_auroc() -> None:
    quality = ranking_quality(np.array([1.0, 2.0]), np.array([True, True]), np.array([0, 1]), Bootstrap(100))
    assert quality.overall is None and quality.within is None and quality.count == 2


def test_reliability_worked_numbers() -> None:
    bins = reliability(np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert [(b.low, b.count, b.share_right) for b in bins] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert bins[1].mean_score == pytest.approx(0.975)
