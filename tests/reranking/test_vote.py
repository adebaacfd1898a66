import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2h_pipeline.reranking.vote import best_of_n, pass_at_n, subset_shares, vote_accuracy


def vote(classes: list[int], correct: list[int], weights: list[float] | None = None) -> float:
    """Accuracy of one vote over all given samples."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([weights if weights else [1.0] * len(classes)]))
    everything = np.arange(len(classes))[None, :]
    return float(vote_accuracy(everything, np.array(classes), np.array(correct, dtype=bool), logs)[0])


def test_majority_wins() -> None:
    assert vote([0, 0, 1], [1, 1, 0]) == 1
    assert vote([0, 0, 1], [0, 0, 1]) == 0


def test_tied_classes_share_the_credit_in_any_order() -> None:
    for order in itertools.permutations([(0, 1), (1, 0), (2, 0)]):
        classes, correct = zip(*order, strict=True)
        assert vote(list(classes), list(correct)) == pytest.approx(1 / 3)


def test_samples_without_answer_have_no_vote() -> None:
    assert vote([-1, -1, -1, 0], [0, 0, 0, 1]) == 1
    assert vote([-1, -1], [0, 0]) == 0
    assert vote([-1, 0, 1], [0, 1, 0], [9.0, 0.2, 0.1]) == 1


def test_weighted_vote_can_overrule_the_majority() -> None:
    assert vote([0, 0, 1], [0, 0, 1], [0.2, 0.2, 0.5]) == 1
    assert vote([0, 0, 1], [0, 0, 1], [0.3, 0.3, 0.5]) == 0


def test_weights_that_are_all_zero_make_a_majority_vote() -> None:
    assert vote([0, 0, 1], [1, 1, 0], [0, 0, 0]) == 1


def test_tiny_weights_still_decide() -> None:
    logs = np.array([[-2000.0, -2000.0, -1999.0]])  # e > 2: the single vote wins
    accuracy = vote_accuracy(np.array([[0, 1, 2]]), np.array([0, 0, 1]), np.array([False, False, True]), logs)
    assert accuracy[0] == 1


def test_sums_equal_up_to_rounding_are_ties() -> None:
    assert vote([0, 0, 0, 1], [1, 1, 1, 0], [0.1, 0.2, 0.3, 0.6]) == 0.5


def test_disagreeing_members_count_by_their_share() -> None:
    assert vote([0, 0, 0, 0], [1, 1, 1, 0]) == 0.75


samples = st.lists(
    st.tuples(st.integers(-1, 3), st.floats(-3, 0).map(lambda x: round(x, 1))), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(samples, st.data())
def test_best_of_n_and_pass_equal_brute_force(pool: list[tuple[int, float]], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(pool)))
    correct = np.array([c == 0 for c, _ in pool])
    scores = np.array([s if c >= 0 else -np.inf for c, s in pool])
    best, passed = [], []
    for chosen in itertools.combinations(range(len(pool)), n):
        top = scores[list(chosen)].max()
        best.append(np.mean([correct[i] for i in chosen if scores[i] == top]))
        passed.append(any(correct[i] for i in chosen))
    shares = subset_shares(len(pool), [n])
    assert best_of_n(scores, correct, shares)[0] == pytest.approx(np.mean(best), abs=1e-9)
    assert pass_at_n(correct, shares)[0] == pytest.approx(np.mean(passed), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_votes_do_not_depend_on_the_order_of_samples(pool: list[tuple[int, float]], random: object) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    results = []
    for items in (pool, shuffled):
        classes = [c for c, _ in items]
        results.append(vote(classes, [c == 0 for c in classes], [math.exp(s) for _, s in items]))
    assert results[0] == pytest.approx(results[1])


def test_pass_at_n_worked_number() -> None:
    # 2 of 5 right, N = 2: 1 - C(3, 2) / C(5, 2) = 1 - 3/10
    assert pass_at_n(np.array([True, True, False, False, False]), subset_shares(5, [2]))[0] == pytest.approx(
        0.7
    )


def test_best_of_n_worked_number() -> None:
    # Scores 1 < 2 < 3 < 4, only the third is right: it wins C(2, 1) / C(4, 2) = 1/3 of pairs.
    right = np.array([False, False, True, False])
    accuracy = best_of_n(np.array([1.0, 2.0, 3.0, 4.0]), right, subset_shares(4, [1, 2, 4]))
    np.testing.assert_allclose(accuracy, [1 / 4, 1 / 3, 0])


def test_shares_stay_exact_for_large_pools() -> None:
    table = subset_shares(1024, [512])
    assert table[0, 1000] == pytest.approx(math.comb(1000, 512) / math.comb(1024, 512), rel=1e-10)
