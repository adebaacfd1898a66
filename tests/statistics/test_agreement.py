"""Agreement of two judges, with numbers worked out by hand."""

import pytest

from e2h_pipeline.statistics.agreement import agreement


def test_kappa_is_what_chance_leaves() -> None:
    # Judges call .7 and .6 right; by chance .42 + .12 = .54 would be equal, and .7 are.
    pairs = [(True, True)] * 5 + [(True, False)] * 2 + [(False, True)] + [(False, False)] * 2
    found = agreement(pairs)
    assert (found["steps"], found["equal"]) == (10, pytest.approx(0.7))
    assert found["kappa"] == pytest.approx((0.7 - 0.54) / 0.46)
    assert [found[name] for name in ("right_right", "right_wrong", "wrong_right", "wrong_wrong")] == [
        5,
        2,
        1,
        2,
    ]


def test_what_cannot_be_told_is_none() -> None:
    assert (agreement([])["equal"], agreement([])["kappa"]) == (None, None)
    alike = agreement([(True, True)] * 3)
    assert (alike["equal"], alike["kappa"]) == (1.0, None)  # chance alone would agree as much
