"""From easy to hard: what an evaluator loses, next to what the generator loses on the same problems.

Both get worse on hard problems. The method works where the evaluator gets worse by less (paper,
section 4.1: "evaluators generalize better than generators"). Chance is 1/2 for AUROC and 0 for
accuracy. So besides the plain change there is the share of the lead over chance that is kept,

    kept = (value on hard - chance) / (value on easy - chance),

and the difference of the two shares. Problems are resampled within the easy and within the hard
group, the same ones for evaluator and generator, so the difference is paired.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import is_single_level
from e2h_pipeline.statistics.ranking import auroc, resampled_auroc, win_matrix

GENERATOR = "generator_accuracy"


@dataclass(frozen=True)
class GroupMeasure:
    """One measure on one group of problems.

    Attributes:
        resampled: (resamples,) the measure on resampled problems; nan where it is not defined.
        count: items behind it.
    """

    value: float
    resampled: NDArray[np.float64]
    chance: float
    count: int


@dataclass(frozen=True)
class TransferChange:
    """A number of the table: `metric` at `levels`, relative to easy."""

    metric: str
    levels: str
    value: float
    low: float
    high: float
    count: int


def measured_auroc(
    scores: NDArray[np.floating],
    right: NDArray[np.bool_],
    problem: NDArray[np.integer],
    mask: NDArray[np.bool_],
    drawn: NDArray[np.float64],
) -> GroupMeasure | None:
    """AUROC over the items of the problems in `mask`; None where a class is missing.

    Args:
        scores: (items,)
        right: (items,)
        problem: (items,) index of each item's problem.
        mask: (problems,)
        drawn: (resamples, problems in mask) times each was drawn.
    """
    kept = mask[problem]
    value = auroc(scores[kept], right[kept])
    if value is None:
        return None
    number = np.cumsum(mask) - 1
    size = int(mask.sum())
    matrix = win_matrix(scores[kept], right[kept], number[problem[kept]], size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return GroupMeasure(value, resampled_auroc(*matrix, drawn), 0.5, int(kept.sum()))


def measured_accuracy(
    correct: NDArray[np.bool_], mask: NDArray[np.bool_], drawn: NDArray[np.float64]
) -> GroupMeasure:
    """Mean accuracy of the generator's samples on the problems in `mask`.

    Args:
        correct: (problems, samples)
    """
    means = correct[mask].mean(axis=1)
    return GroupMeasure(float(means.mean()), drawn @ means / mask.sum(), 0.0, int(correct[mask].size))


def resampling_counts(
    groups: Mapping[str, NDArray[np.bool_]], bootstrap: Bootstrap
) -> dict[str, NDArray[np.float64]]:
    """Resampling counts of each group; groups are drawn independently of each other."""
    return {
        name: Bootstrap(bootstrap.resamples, bootstrap.confidence, bootstrap.seed + number).counts(
            int(mask.sum())
        )
        for number, (name, mask) in enumerate(groups.items())
    }


def harder_groups(groups: Collection[str], easy_levels: Collection[int]) -> list[str]:
    """The groups that are compared with "easy": each level that is not easy, and "hard", in the order of `groups`."""
    return [
        name for name in groups if (int(name) not in easy_levels if is_single_level(name) else name == "hard")
    ]


def changes_from_easy(
    easy: Mapping[str, GroupMeasure], there: Mapping[str, GroupMeasure], levels: str, bootstrap: Bootstrap
) -> Iterator[TransferChange]:
    """Changes from easy to one other group, of every measure and of each evaluator over the generator.

    Args:
        easy: measure name -> its value on easy problems; `GENERATOR` is the generator's.
        there: the same on the problems of `levels`.
    """
    kept: dict[str, GroupMeasure] = {}
    for name in (name for name in easy if name in there):
        before, after = easy[name], there[name]
        difference = after.resampled - before.resampled
        yield _change(
            f"{name}_change", levels, after.value - before.value, difference, after.count, bootstrap
        )
        lead, lead_resampled = before.value - before.chance, before.resampled - before.chance
        if lead > 0:  # a share of nothing says nothing
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.where(
                    lead_resampled > 0, (after.resampled - after.chance) / lead_resampled, np.nan
                )
            kept[name] = GroupMeasure((after.value - after.chance) / lead, share, 0.0, after.count)
            yield _change(f"{name}_kept", levels, kept[name].value, share, after.count, bootstrap)
    if GENERATOR not in kept:
        return
    generator = kept.pop(GENERATOR)
    for name, own in kept.items():
        yield _change(
            f"{name}_kept_over_generator",
            levels,
            own.value - generator.value,
            own.resampled - generator.resampled,
            own.count,
            bootstrap,
        )


def _change(
    metric: str,
    levels: str,
    value: float,
    resampled: NDArray[np.float64],
    count: int,
    bootstrap: Bootstrap,
) -> TransferChange:
    low, high = bootstrap.bounds(resampled[:, None])
    return TransferChange(metric, levels, value, float(low[0]), float(high[0]), count)
