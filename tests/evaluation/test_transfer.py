import numpy as np
import pytest

from e2h_pipeline.evaluation.transfer import (
    GENERATOR,
    GroupMeasure,
    changes_from_easy,
    harder_groups,
    measured_accuracy,
    measured_auroc,
    resampling_counts,
)
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups

BOOTSTRAP = Bootstrap(300)


def test_changes_worked_numbers() -> None:
    # Evaluator .9 -> .8: keeps 3/4 of its lead over 1/2. Generator .5 -> .1: keeps 1/5.
    def constant(value: float, chance: float) -> GroupMeasure:
        return GroupMeasure(value, np.full(300, value), chance, 7)

    easy = {GENERATOR: constant(0.5, 0), "step_auroc": constant(0.9, 0.5), "x": constant(0.5, 0.5)}
    hard = {GENERATOR: constant(0.1, 0), "step_auroc": constant(0.8, 0.5), "x": constant(0.6, 0.5)}
    found = {c.metric: c.value for c in changes_from_easy(easy, hard, "hard", BOOTSTRAP)}
    assert found == pytest.approx(
        {
            "generator_accuracy_change": -0.4,
            "generator_accuracy_kept": 0.2,
            "step_auroc_change": -0.1,
            "step_auroc_kept": 0.75,
            "step_auroc_kept_over_generator": 0.55,
            "x_change": 0.1,  # no lead on easy problems, so no share is defined
        }
    )


def test_measures_on_a_group_and_the_pairing() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat([1, 2, 3, 4, 5], 20)
    groups = level_groups(levels, (1, 2, 3))
    drawn = resampling_counts(groups, BOOTSTRAP)
    assert drawn["hard"].shape == (300, 40) and (drawn["hard"].sum(axis=1) == 40).all()
    assert harder_groups(groups, (1, 2, 3)) == ["4", "5", "hard"]
    problem = np.repeat(np.arange(100), 8)
    right = rng.random(800) < 0.6
    scores = right + rng.normal(0, 1, 800)
    measured = measured_auroc(scores, right, problem, groups["hard"], drawn["hard"])
    assert measured is not None and measured.count == 320
    low, high = BOOTSTRAP.bounds(measured.resampled[:, None])
    assert low[0] < measured.value < high[0]
    accuracy = measured_accuracy(right.reshape(100, 8), groups["hard"], drawn["hard"])
    assert accuracy.value == pytest.approx(right[480:].mean())
    assert accuracy.resampled.mean() == pytest.approx(accuracy.value, abs=0.01)
    # Against itself the change is zero in every resample, because both sides draw the same
    # problems.
    same = {"a": accuracy, "b": accuracy}
    assert all(
        c.low == c.high == 0 for c in changes_from_easy(same, same, "hard", BOOTSTRAP) if "change" in c.metric
    )


def test_one_class_cannot_be_ranked() -> None:
    mask, drawn = np.array([True, False]), np.ones((300, 1))
    right = np.array([True, True, False])
    assert measured_auroc(np.arange(3.0), right, np.array([0, 0, 1]), mask, drawn) is None
