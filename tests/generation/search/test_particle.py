"""Weights and systematic resampling of particle filtering."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.generation.search.particle import systematic, weights

UNIFORM = st.floats(0, 1, exclude_max=True)


def test_weights_are_odds() -> None:
    """Scores of 1/2 and 3/4 have odds of 1 and 3; at temperature 2 their roots."""
    logs = np.log([0.5, 0.75])
    np.testing.assert_allclose(weights(logs, 1.0), [0.25, 0.75])
    np.testing.assert_allclose(weights(logs, 2.0), [1 / (1 + 3**0.5), 3**0.5 / (1 + 3**0.5)])


def test_a_score_of_0_or_1_has_a_weight_too() -> None:
    found = weights(np.array([-np.inf, 0.0, 0.0]), 1.0)
    assert np.isfinite(found).all() and found[1] == found[2] == pytest.approx(0.5)


@given(st.integers(1, 300), UNIFORM)
def test_equal_weights_keep_every_particle_once(count: int, uniform: float) -> None:
    uniform = min(max(uniform, 1e-9), 1 - 1e-9)
    assert systematic(np.full(count, 1 / count), uniform) == list(range(count))


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40), UNIFORM)
def test_a_particle_is_taken_its_share_rounded(parts: list[float], uniform: float) -> None:
    weight = np.array(parts) / sum(parts)
    taken = systematic(weight, uniform)
    assert len(taken) == len(parts) and taken == sorted(taken)
    times = np.bincount(taken, minlength=len(parts))
    assert (np.abs(times - weight * len(parts)) < 1 + 1e-6).all()


def test_the_mean_number_of_copies_is_the_weight() -> None:
    weight = np.array([0.05, 0.6, 0.35])
    comb = [np.bincount(systematic(weight, (i + 0.5) / 1000), minlength=3) for i in range(1000)]
    np.testing.assert_allclose(np.mean(comb, 0), weight * 3, atol=2e-3)
