"""Scores per class of error as PRMBench defines them (Song et al. 2025, arXiv 2501.03124, section 3.4).

Every step counts, not only the first error. A step is right where its probability is above a
threshold. With right steps as the positive class,

    PRMScore = F1 / 2 + F1 with wrong steps as the positive class / 2,

over all steps of a class together. `multi_solutions` has no wrong steps, so its score is F1 alone,
as in the authors' code. The overall score pools the steps of all classes. Files are read by
`outside.judged_lines`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepSolution
from e2h_pipeline.statistics.bootstrap import Bootstrap

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CLASSES = tuple(name for names in CATEGORIES.values() for name in names)  # spelled as in the data
_WITHOUT_ERRORS = ("multi_solutions",)


def confusion(scores: Sequence[float], wrong: frozenset[int], threshold: float) -> tuple[int, int, int, int]:
    """Steps of one solution as (right kept, wrong kept, wrong refused, right refused)."""
    counts = Counter((i in wrong, score > threshold) for i, score in enumerate(scores))
    return counts[False, True], counts[True, True], counts[True, False], counts[False, False]


def prm_score(steps: NDArray[np.floating], both_sides: bool = True) -> NDArray[np.float64]:
    """PRMScore of confusion counts; 0 for a side of which nothing is there or nothing is found.

    Args:
        steps: (..., 4) counts in the order of `confusion`.
        both_sides: F1 of right steps alone where False.
    """
    right_kept, wrong_kept, wrong_refused, right_refused = np.moveaxis(np.asarray(steps, float), -1, 0)
    missed = wrong_kept + right_refused
    f1 = 2 * right_kept / np.maximum(2 * right_kept + missed, 1)
    if not both_sides:
        return f1
    return (f1 + 2 * wrong_refused / np.maximum(2 * wrong_refused + missed, 1)) / 2


def prm_bench_rows(
    solutions: Sequence[StepSolution],
    scores: Sequence[Sequence[float]],
    threshold: float,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """PRMScore of each class, each category (mean of its classes) and overall, with intervals.

    Problems are resampled as they are shared: one problem is corrupted in up to nine ways.
    """
    names, cluster = np.unique([s.problem for s in solutions], return_inverse=True)
    drawn = bootstrap.counts(len(names))
    counts = np.array(
        [confusion(row, s.wrong, threshold) for s, row in zip(solutions, scores, strict=True)], float
    )
    groups = np.array([s.group for s in solutions])
    found: dict[str, tuple[float, NDArray[np.float64], int]] = {}
    for name in (*CLASSES, "overall"):
        mask = (groups == name) | (name == "overall")
        if mask.any():
            sums = np.zeros((len(names), 4))
            np.add.at(sums, cluster[mask], counts[mask])
            both = name not in _WITHOUT_ERRORS
            value = float(prm_score(sums.sum(axis=0), both))
            found[name] = (value, prm_score(drawn @ sums, both), int(mask.sum()))
    for name, classes in CATEGORIES.items():
        parts = [found[c] for c in classes if c in found]
        if parts:
            value = float(np.mean([v for v, _, _ in parts]))
            found[name] = (value, np.mean([r for _, r, _ in parts], axis=0), sum(n for _, _, n in parts))
    return [_row(name, *entry, bootstrap) for name, entry in found.items()]


def _row(
    group: str, value: float, resampled: NDArray[np.float64], count: int, bootstrap: Bootstrap
) -> dict[str, Any]:
    low, high = bootstrap.bounds(resampled[:, None])
    return {
        "metric": "prm_score",
        "group": group,
        "value": value,
        "ci_low": float(low[0]),
        "ci_high": float(high[0]),
        "count": count,
    }
