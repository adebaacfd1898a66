"""First-error accuracy as ProcessBench defines it (Zheng et al. 2024, arXiv 2412.06559, section 3).

The evaluator names the first wrong step of a solution: the first step whose probability of being
right is below a threshold, or none (-1). Per subset,

    accuracy on erroneous samples = share of wrong solutions whose first wrong step is named
    exactly, accuracy on correct samples   = share of right solutions where none is named,
    F1 = harmonic mean of the two,

and the headline is the mean of F1 over the subsets. The threshold comes from validation solutions
of easy problems only, never from the benchmark (the paper takes it from its GSM8K subset).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepJudge, StepSolution, step_scores
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.statistics.bootstrap import Bootstrap, wilson
from e2h_pipeline.statistics.calibration import Estimate
from e2h_pipeline.statistics.levels import known_levels, level_array

if TYPE_CHECKING:
    import pyarrow as pa


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


def process_bench_rows(
    solutions: Sequence[StepSolution],
    scores: Sequence[Sequence[float]],
    threshold: float,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """One row per metric and group: each subset, each level where levels are known, and the average.

    The average is the mean of F1 over the subsets; its interval draws each subset by itself.
    """
    named = np.array([first_error_index(s, threshold) for s in scores])
    truth = np.array([min(s.wrong, default=NO_ERROR) for s in solutions])
    problems = np.array([s.problem for s in solutions])
    rows: list[dict[str, Any]] = []
    subsets: list[tuple[float, NDArray[np.float64]]] = []
    for number, (name, mask) in enumerate(_groups(solutions).items()):
        own = Bootstrap(bootstrap.resamples, bootstrap.confidence, bootstrap.seed + number)
        quality, resampled = _clustered(named[mask], truth[mask], problems[mask], own)
        rows += quality_rows(quality, name)
        if not name.startswith("level ") and quality.f1 is not None and resampled is not None:
            subsets.append((quality.f1[0], resampled))
    if subsets:
        average = np.mean([resampled for _, resampled in subsets], axis=0)
        value = _estimate(float(np.mean([v for v, _ in subsets])), average, bootstrap)
        rows.append(_row("f1", "average", value, len(solutions)))
    return rows


def _groups(solutions: Sequence[StepSolution]) -> dict[str, NDArray[np.bool_]]:
    subset, level = np.array([s.group for s in solutions]), level_array(s.level for s in solutions)
    groups = {name: subset == name for name in dict.fromkeys(subset.tolist())}
    return groups | {f"level {n}": level == n for n in known_levels(level)}


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


def validation_threshold(judge: StepJudge, labels: Path) -> Threshold:
    """`choose_threshold` on the validation part of an easy_step_labels artifact.

    A solution without a wrong label counts as right. Soft labels count as wrong below one half.

    Raises:
        OneClass: no right or no wrong solution to choose on.
    """
    rows = [row for row in read_table(labels / "data.parquet").to_pylist() if row["split"] == "validation"]
    scores = judge.probabilities([(r["question"], r["completion"], r["finished"]) for r in rows])
    truth = [next((i for i, label in enumerate(r["labels"]) if 0 <= label < 0.5), NO_ERROR) for r in rows]
    return choose_threshold(scores, truth)


def judge_process_bench(
    judge: StepJudge, file: Path, labels: Path, bootstrap: Bootstrap, work: Work
) -> dict[str, Any]:
    """Score a ProcessBench file with an evaluator; write `first_error.parquet` and `predictions.parquet`.

    Args:
        file: ProcessBench as JSON lines, plain or gzipped.
        labels: easy_step_labels artifact; its validation part gives the threshold.

    Returns:
        The threshold, counts, and the three numbers of each group as [value, low, high].
    """
    import pyarrow as pa

    threshold = validation_threshold(judge, labels)
    solutions = read_process_bench(file)
    work.reporter.message(f"scoring {len(solutions):,} solutions of {file.name}")
    scores = step_scores(judge, solutions)
    rows = process_bench_rows(solutions, scores, threshold.value, bootstrap)
    write_table(work.out / "first_error.parquet", pa.Table.from_pylist(rows))
    write_table(work.out / "predictions.parquet", _predictions(solutions, scores, threshold.value))
    return {
        "threshold": threshold.value,
        "validation_f1": threshold.validation_f1,
        "validation_solutions": threshold.solutions,
        "solutions": dict(Counter(s.group for s in solutions)),
        **{metric: headline(rows, metric) for metric in METRICS},
    }


def _predictions(
    solutions: Sequence[StepSolution], scores: Sequence[Sequence[float]], threshold: float
) -> pa.Table:
    """What the evaluator says of each solution; `level` is null where it is unknown."""
    import pyarrow as pa

    rows = [
        {
            "id": solution.identity,
            "subset": solution.group,
            "level": solution.level,
            "first_error": min(solution.wrong, default=NO_ERROR),
            "named": first_error_index(score, threshold),
            "step_scores": score,
        }
        for solution, score in zip(solutions, scores, strict=True)
    ]
    texts = {name: pa.string() for name in ("id", "subset")}
    numbers = {name: pa.int64() for name in ("level", "first_error", "named")}
    return pa.Table.from_pylist(rows, pa.schema({**texts, **numbers, "step_scores": pa.list_(pa.float64())}))


def headline(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    """One metric of each group as [value, low, high]."""
    return {
        r["group"]: [round(r[c], 4) for c in ("value", "ci_low", "ci_high")]
        for r in rows
        if r["metric"] == metric
    }
