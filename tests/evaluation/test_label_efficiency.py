import numpy as np
import pytest

from e2h_pipeline.evaluation.label_efficiency import efficiency

BUDGETS = [100, 200, 400, 800]


def test_a_way_that_needs_half_the_labels_has_a_factor_of_two() -> None:
    """accuracy = 0.1 log(labels) for one, 0.1 log(2 labels) for the other, in every seed."""
    uniform = np.array([0.1 * np.log(BUDGETS)] * 3)
    found = efficiency(BUDGETS, uniform, BUDGETS, uniform + 0.1 * np.log(2))
    assert found.factor == pytest.approx((2, 2, 2))
    assert found.by_seed == pytest.approx((2, 2, 2))


def test_seeds_that_differ_have_an_interval() -> None:
    uniform = np.array([0.1 * np.log(BUDGETS)] * 3)
    gains = 0.1 * np.log([[1.5], [2.0], [2.5]])
    factor = efficiency(BUDGETS, uniform, BUDGETS, uniform + gains).factor
    assert factor is not None
    value, low, high = factor
    assert value == pytest.approx((1.5 * 2.0 * 2.5) ** (1 / 3))
    assert low < value < high


@pytest.mark.parametrize("other", [[0.5, 0.5, 0.5, 0.5], [0.8, 0.7, 0.6, 0.5], [0.5, 0.9, 0.4, 0.6]])
def test_a_line_that_does_not_rise_or_does_not_fit_gives_no_factor(other: list[float]) -> None:
    uniform = np.array([0.1 * np.log(BUDGETS)])
    found = efficiency(BUDGETS, uniform, BUDGETS, np.array([other]))
    assert found.factor is None
    assert "none: a line" in found.told()
