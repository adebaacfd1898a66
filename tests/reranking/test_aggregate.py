import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2h_pipeline.reranking.aggregate import (
    Aggregation,
    by_preference,
    last,
    log_solution_scores,
    mean,
    minimum,
    product,
    step_probabilities,
)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


# Two solutions: steps of .9, .5 and, after one without steps, a single step of .2.
LOGITS = np.array([logit(0.9), logit(0.5), logit(0.2)])
OFFSETS = np.array([0, 2, 2, 3])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [(product, [0.45, 0, 0.2]), (minimum, [0.5, 0, 0.2]), (mean, [0.7, 0, 0.2]), (last, [0.5, 0, 0.2])],
)
def test_worked_scores(aggregation: Aggregation, expected: list[float]) -> None:
    np.testing.assert_allclose(np.exp(log_solution_scores(LOGITS, OFFSETS, aggregation)), expected)


def test_product_of_many_poor_steps_keeps_its_order() -> None:
    logits = np.array([-20.0] * 60 + [-20.0] * 61)
    worse, worst = log_solution_scores(logits, np.array([0, 60, 121]), product)[[0, 1]]
    assert np.exp(worse) == 0 and worst < worse


def test_probabilities_of_extreme_logits() -> None:
    np.testing.assert_allclose(step_probabilities(np.array([-1000.0, 0.0, 1000.0])), [0, 0.5, 1])


ONE_BY_ONE = {product: np.prod, minimum: np.min, mean: np.mean, last: lambda p: p[-1]}


@given(
    st.lists(st.lists(st.floats(-30, 30), max_size=6), min_size=1, max_size=8),
    st.sampled_from(list(ONE_BY_ONE)),
)
def test_ragged_reduction_equals_one_by_one(solutions: list[list[float]], aggregation: Aggregation) -> None:
    offsets = np.cumsum([0, *map(len, solutions)])
    scores = np.exp(log_solution_scores(np.array([x for s in solutions for x in s]), offsets, aggregation))
    reduce = ONE_BY_ONE[aggregation]
    expected = [reduce(step_probabilities(np.array(s))) if s else 0.0 for s in solutions]
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("logits", "offsets", "message"),
    [([0.0, np.nan], [0, 2], "step logit 1 is nan"), ([0.0, 0.0], [0, 1], "offsets")],
)
def test_bad_input_is_refused(logits: list[float], offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_solution_scores(np.array(logits), np.array(offsets), minimum)


def test_an_aggregation_of_an_installed_package_comes_last() -> None:
    assert by_preference("best-of-n", ["last", "median", "product"]) == ["product", "last", "median"]
