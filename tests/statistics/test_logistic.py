import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from e2h_pipeline.statistics.bootstrap import wilson
from e2h_pipeline.statistics.logistic import fit_logistic


def test_it_is_the_regression_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [1, 10, 0.1] + [0, 5, 2]
    y = (rng.random(200) < 1 / (1 + np.exp(-(x[:, 0] - 0.2 * x[:, 1] + 1)))).astype(float)
    found = fit_logistic(x, y).probability(x)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(scaled, y).predict_proba(scaled)[:, 1]
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_constant_is_the_share_where_features_say_nothing() -> None:
    found = fit_logistic(np.ones((8, 2)), np.array([1, 1, 1, 0, 0, 0, 0, 0.0]))
    assert found.probability(np.ones((1, 2))) == pytest.approx([3 / 8], abs=1e-5)


def test_one_class_and_separable_data_have_finite_weights() -> None:
    x = np.arange(6.0)[:, None]
    assert fit_logistic(x, np.ones(6)).probability(x).min() > 0.99
    fitted = fit_logistic(x, (x[:, 0] > 2).astype(float))
    assert np.isfinite(fitted.weights).all()
    assert (fitted.probability(x) > 0.5).tolist() == [False] * 3 + [True] * 3


def test_no_items_are_an_error() -> None:
    with pytest.raises(ValueError, match="no items"):
        fit_logistic(np.empty((0, 2)), np.empty(0))


def test_wilson_by_hand() -> None:
    """z = 1.96: 0 of 4 is [0, z² / (4 + z²)]; 2 of 4 is 1/2 with half-width
    z / (1 + z²/4) sqrt(1/16 + z²/64)."""
    z2 = 1.959963984540054**2
    assert wilson(0, 4, 0.95) == pytest.approx((0, z2 / (4 + z2)))
    assert wilson(1, 4, 0.95) == pytest.approx((4 / (4 + z2), 1))
    half = z2**0.5 / (1 + z2 / 4) * (1 / 16 + z2 / 64) ** 0.5
    assert wilson(0.5, 4, 0.95) == pytest.approx((0.5 - half, 0.5 + half))
