"""First-error accuracy as ProcessBench defines it (Zheng et al. 2024, arXiv 2412.06559, section 3).

The evaluator names the first wrong step of a solution: the first step whose probability of being
right is below a threshold, or none (-1). Per subset,

    accuracy on erroneous samples = share of wrong solutions whose first wrong step is named
    exactly, accuracy on correct samples   = share of right solutions where none is named,
    F1 = harmonic mean of the two,

and the headline is the mean of F1 over the subsets (`outside.judge`). In experiments the threshold
comes from validation solutions of easy problems only, never from the benchmark (the paper takes it
from its GSM8K subset).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepSolution
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.statistics.bootstrap import Bootstrap, wilson
from e2h_pipeline.statistics.calibration import Estimate

NO_ERROR = -1
METRICS = ("accuracy_erroneous", "accuracy_correct", "f1")
_MAX_CANDIDATES = 1000  # thresholds tried; beyond it, quantiles of the scores


@dataclass(frozen=True)
class FirstErrorQuality:
    """ProcessBench's three numbers with intervals over problems; None where a class has no solution."""

    accuracy_erroneous: Estimate | None
    accuracy_correct: Estimate | None
    f1: Estimate | None
    erroneous: int
    correct: int


def first_error_index(scores: Sequence[float], threshold: float) -> int:
    """Index of the first step with a score below the threshold, -1 where there is none."""
    return next((i for i, score in enumerate(scores) if score < threshold), NO_ERROR)


def harmonic_mean(a: float, b: float) -> float:
    """F1 of two accuracies; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


class OneClass(ValueError):
    """There is nothing to choose a threshold on."""


@dataclass(frozen=True)
class Threshold:
    """A threshold on step probabilities, and the first-error F1 it has where it was chosen."""

    value: float
    validation_f1: float
    solutions: int


def choose_threshold(scores: Sequence[Sequence[float]], truth: Sequence[int]) -> Threshold:
    """The threshold with the best first-error F1 on validation solutions of easy problems.

    As a rule, several thresholds are best. The middle one is taken: it moves least when the
    validation set changes a little.

    Args:
        scores: step probabilities of each solution, steps behind the first error included.
        truth: index of the first wrong step of each solution, -1 where there is none.

    Raises:
        OneClass: no right or no wrong solution to choose on.
    """
    labels = np.asarray(truth)
    if not (labels == NO_ERROR).any() or (labels == NO_ERROR).all():
        raise OneClass(
            f"{len(labels)} validation solutions, {int((labels == NO_ERROR).sum())} of them right: a "
            "threshold needs right and wrong ones"
        )
    candidates = _candidates(np.concatenate([np.asarray(s, float) for s in scores]))
    hits = np.stack([_named(s, candidates) == t for s, t in zip(scores, truth, strict=True)])
    wrong, right = hits[labels != NO_ERROR].mean(axis=0), hits[labels == NO_ERROR].mean(axis=0)
    f1 = _harmonic(wrong, right)
    best = np.flatnonzero(f1 == f1.max())
    chosen = best[len(best) // 2]
    return Threshold(float(candidates[chosen]), float(f1[chosen]), len(labels))


def _candidates(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Midpoints between neighbouring scores, from 0 to 1; at most `_MAX_CANDIDATES`."""
    values = np.unique(np.concatenate([scores, [0.0, 1.0]]))
    if len(values) > _MAX_CANDIDATES:
        values = np.unique(np.quantile(scores, np.linspace(0, 1, _MAX_CANDIDATES)))
    return (values[:-1] + values[1:]) / 2


def _named(scores: Sequence[float], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """`first_error_index` at each of many thresholds, (thresholds,)."""
    below = np.asarray(scores, float)[:, None] < thresholds
    return np.where(below.any(axis=0), below.argmax(axis=0), NO_ERROR)


def first_error_quality(
    named: NDArray[np.integer],
    truth: NDArray[np.integer],
    problems: NDArray[Any],
    bootstrap: Bootstrap,
) -> FirstErrorQuality:
    """The three numbers of one subset, with percentile intervals over problems.

    Args:
        named: (solutions,) first wrong step as the evaluator has it, -1 for none.
        truth: (solutions,) the same as people have it.
        problems: (solutions,) which problem each belongs to.
    """
    return _clustered(named, truth, problems, bootstrap)[0]


def hits_quality(
    hits: NDArray[np.floating],
    truth: NDArray[np.integer],
    problem: NDArray[np.integer],
    problems: int,
    bootstrap: Bootstrap,
) -> tuple[FirstErrorQuality, NDArray[np.float64] | None]:
    """The three numbers, and F1 of each resample where there is one.

    Args:
        hits: (solutions,) 1 where the first wrong step is named right; a share where it is guessed.
        truth: (solutions,) first wrong step as people have it, -1 for none.
        problem: (solutions,) number of the problem each belongs to.
        problems: that are resampled.
    """
    classes = [truth != NO_ERROR, truth == NO_ERROR]

    def per_problem(columns: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
        return np.stack([np.bincount(problem, column, minlength=problems) for column in columns], axis=1)

    found = per_problem([hits * each for each in classes])
    return _quality(found, per_problem([each.astype(float) for each in classes]), bootstrap)


def _clustered(
    named: NDArray[np.integer], truth: NDArray[np.integer], problems: NDArray[Any], bootstrap: Bootstrap
) -> tuple[FirstErrorQuality, NDArray[np.float64] | None]:
    """`hits_quality` of named steps; problems by any value."""
    cluster = np.unique(problems, return_inverse=True)[1]
    size = int(cluster.max(initial=-1)) + 1
    return hits_quality((named == truth).astype(float), truth, cluster, size, bootstrap)


def _quality(
    hits: NDArray[np.float64], counts: NDArray[np.float64], bootstrap: Bootstrap
) -> tuple[FirstErrorQuality, NDArray[np.float64] | None]:
    """The three numbers of hits and solutions per problem, (problems, 2), columns wrong and right."""
    total, problems = counts.sum(axis=0), (counts > 0).sum(axis=0)
    drawn = bootstrap.counts(len(hits))
    with np.errstate(invalid="ignore", divide="ignore"):
        value, resampled = hits.sum(axis=0) / total, (drawn @ hits) / (drawn @ counts)
    sides: list[Estimate | None] = [None, None]
    for i in (0, 1):
        if total[i]:
            sides[i] = _estimate(value[i], resampled[:, i], bootstrap)
            if value[i] in (0, 1):  # resamples all say the same
                sides[i] = (float(value[i]), *wilson(value[i], int(problems[i]), bootstrap.confidence))
    f1, f1_resampled = None, None
    wrong, right = sides
    if wrong is not None and right is not None:
        f1_resampled = _harmonic(resampled[:, 0], resampled[:, 1])
        f1 = _estimate(harmonic_mean(value[0], value[1]), f1_resampled, bootstrap)
        if 0 in value:
            f1 = (0.0, 0.0, harmonic_mean(wrong[2], right[2]))
    return FirstErrorQuality(wrong, right, f1, int(total[0]), int(total[1])), f1_resampled


def _harmonic(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """`harmonic_mean` of arrays; nan stays nan."""
    both = a + b
    return np.where(both == 0, 0.0, 2 * a * b / np.where(both == 0, 1.0, both))


def _estimate(value: float, resampled: NDArray[np.float64], bootstrap: Bootstrap) -> Estimate:
    low, high = bootstrap.bounds(resampled[:, None])
    return float(value), float(low[0]), float(high[0])


def quality_rows(quality: FirstErrorQuality, group: str) -> list[dict[str, Any]]:
    """The numbers that exist as table rows."""
    counts = {
        "accuracy_erroneous": quality.erroneous,
        "accuracy_correct": quality.correct,
        "f1": quality.erroneous + quality.correct,
    }
    values = {metric: getattr(quality, metric) for metric in METRICS}
    return [_row(m, group, value, counts[m]) for m, value in values.items() if value is not None]


def _row(metric: str, group: str, value: Estimate, count: int) -> dict[str, Any]:
    return {
        "metric": metric,
        "group": group,
        "value": value[0],
        "ci_low": value[1],
        "ci_high": value[2],
        "count": count,
    }


def read_process_bench(path: Path) -> list[StepSolution]:
    """Records of a ProcessBench file: `id, problem, steps, label, subset`, and `math_level` where there is one.

    Raises:
        ProblemError: a record that does not fit; names file, line and field.
    """
    solutions = []
    for line, record in read_jsonl(path):
        steps, label = field(record, "steps", list, path, line), field(record, "label", int, path, line)
        if not NO_ERROR <= label < len(steps):
            raise ProblemError(
                f"{path}:{line}: 'label' is {label}, but there are {len(steps)} steps and -1 for none"
            )
        question = field(record, "problem", str, path, line)
        solutions.append(
            StepSolution(
                identity=field(record, "id", str, path, line),
                group=field(record, "subset", str, path, line),
                problem=question,
                level=record.get("math_level"),
                question=question,
                steps=tuple(steps),
                wrong=frozenset() if label == NO_ERROR else frozenset({label}),
            )
        )
    return solutions
