import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.statistics.multiple import holm, p_value_of_interval


def test_holm_by_hand() -> None:
    # 0.01 * 4; 0.02 * 3; 0.03 * 2, not below the one before; 0.9 * 1
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for before, after in zip(p_values, holm(p_values), strict=True):
        assert before <= after <= min(1, before * len(p_values)) + 1e-12


def test_twenty_comparisons_of_equal_methods_are_rarely_clear() -> None:
    p_values = np.random.default_rng(0).random((2000, 20))
    assert np.mean((p_values < 0.05).any(axis=1)) > 0.6
    assert np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()]) < 0.06


def test_the_p_value_of_an_interval() -> None:
    assert p_value_of_interval(0.0196, 0.0, 0.0392, 0.95) == pytest.approx(0.05, abs=1e-4)
    assert p_value_of_interval(-0.02576, -0.04536, -0.00616, 0.95) == pytest.approx(0.01, abs=1e-4)
    assert p_value_of_interval(0.0, 0.0, 0.0, 0.95) == 1.0
    assert p_value_of_interval(1.0, 1.0, 1.0, 0.95) == 0.0
