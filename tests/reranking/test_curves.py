import numpy as np
import pytest

from e2h_pipeline.reranking.curves import RerankPool, method_curves


def pool(problems: int = 6, samples: int = 8) -> RerankPool:
    rng = np.random.default_rng(0)
    classes = rng.integers(-1, 4, (problems, samples))
    scores = np.log(rng.random((problems, samples)))
    ids = tuple(f"p{i}" for i in range(problems))
    return RerankPool(ids, classes, classes == 0, {"product": scores, "min": scores / 2})


def test_every_method_has_a_problem_by_count_matrix() -> None:
    counts, curves = method_curves(pool(), draws=16, seed=3)
    assert counts == [1, 2, 4, 8]
    assert set(curves) == {
        ("majority", ""),
        ("pass", ""),
        *((m, a) for m in ("weighted-vote", "best-of-n") for a in ("product", "min")),
    }
    assert all(c.shape == (6, 4) and (c >= 0).all() and (c <= 1).all() for c in curves.values())


def test_one_sample_is_plain_accuracy_for_every_method() -> None:
    graded = pool()
    for curve in method_curves(graded, draws=4, seed=0)[1].values():
        np.testing.assert_allclose(curve[:, 0], graded.correct.mean(axis=1))


def test_a_problem_keeps_its_numbers_when_others_leave() -> None:
    graded = pool()
    part = RerankPool(
        graded.problem_ids[2:4],
        graded.classes[2:4],
        graded.correct[2:4],
        {name: s[2:4] for name, s in graded.log_scores.items()},
    )
    whole, alone = (method_curves(p, draws=8, seed=1)[1] for p in (graded, part))
    for method, curve in alone.items():
        np.testing.assert_array_equal(curve, whole[method][2:4])


def test_equal_weights_vote_like_the_majority() -> None:
    graded = pool()
    flat = RerankPool(graded.problem_ids, graded.classes, graded.correct, {"mean": np.full((6, 8), -1.5)})
    curves = method_curves(flat, draws=8, seed=1)[1]
    np.testing.assert_allclose(curves["weighted-vote", "mean"], curves["majority", ""])


def test_a_worthless_solution_beats_an_unfinished_one() -> None:
    one = RerankPool(
        ("p",), np.array([[0, -1]]), np.array([[True, False]]), {"min": np.array([[-np.inf, 0.0]])}
    )
    counts, curves = method_curves(one, draws=1, seed=0)
    assert curves["best-of-n", "min"][0] == pytest.approx([0.5, 1.0])
    assert counts == [1, 2]
