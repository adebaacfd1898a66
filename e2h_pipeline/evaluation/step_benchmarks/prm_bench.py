"""Scores per class of error as PRMBench defines them (Song et al. 2025, arXiv 2501.03124, section 3.4).

Every step counts, not only the first error. A step is right where its probability is above a
threshold. With right steps as the positive class,

    PRMScore = F1 / 2 + F1 with wrong steps as the positive class / 2,

over all steps of a class together. `multi_solutions` has no wrong steps, so its score is F1 alone,
as in the authors' code. The overall score pools the steps of all classes. Errors are numbered from
1. A few numbers are beyond the last step: the score leaves them out, as the authors' code does, and
the summary counts them. Of records with one id in a class, the first one is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepJudge, StepSolution, step_scores
from e2h_pipeline.problems.jsonl import field, read_jsonl
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.statistics.bootstrap import Bootstrap

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CLASSES = tuple(name for names in CATEGORIES.values() for name in names)  # spelled as in the data
_WITHOUT_ERRORS = ("multi_solutions",)


@dataclass(frozen=True)
class PrmBench:
    """The solutions that stay, and what was left out: `repeated` records, and `errors_off_the_end`."""

    solutions: tuple[StepSolution, ...]
    counts: Mapping[str, int]


def read_prm_bench(path: Path) -> PrmBench:
    """Records of a PRMBench file: the modified question and process, and which of its steps are wrong.

    Raises:
        ProblemError: a record that does not fit; names file, line and field.
    """
    kept: dict[tuple[str, str], StepSolution] = {}
    counts = Counter({"records": 0, "repeated": 0, "errors_off_the_end": 0})
    for line, record in read_jsonl(path):
        counts["records"] += 1
        identity = (
            field(record, "classification", str, path, line),
            field(record, "idx", str, path, line),
        )
        if identity[0] not in CLASSES:
            raise ProblemError(f"{path}:{line}: 'classification' is {identity[0]}; there are {CLASSES}")
        if identity in kept:
            counts["repeated"] += 1
            continue
        steps = field(record, "modified_process", list, path, line)
        errors = [step - 1 for step in field(record, "error_steps", list, path, line)]
        wrong = frozenset(i for i in errors if 0 <= i < len(steps))
        counts["errors_off_the_end"] += len(set(errors)) - len(wrong)
        kept[identity] = StepSolution(
            identity=identity[1],
            group=identity[0],
            problem=identity[1],
            level=None,
            question=field(record, "modified_question", str, path, line),
            steps=tuple(steps),
            wrong=wrong,
        )
    return PrmBench(tuple(kept.values()), dict(counts))


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


def judge_prm_bench(
    judge: StepJudge, file: Path, threshold: float, bootstrap: Bootstrap, work: Work
) -> dict[str, Any]:
    """Score a PRMBench file with an evaluator and write `prm_scores.parquet`.

    Args:
        file: PRMBench as JSON lines, plain or gzipped.
        threshold: probability above which a step counts as right: 0.5, or one from easy validation.

    Returns:
        The threshold, counts, and the score of each class and category as [value, low, high].
    """
    import pyarrow as pa

    bench = read_prm_bench(file)
    work.reporter.message(f"scoring {len(bench.solutions):,} solutions of {file.name}")
    scores = step_scores(judge, bench.solutions)
    rows = prm_bench_rows(bench.solutions, scores, threshold, bootstrap)
    write_table(work.out / "prm_scores.parquet", pa.Table.from_pylist(rows))
    return {
        "threshold": threshold,
        **bench.counts,
        "prm_score": {r["group"]: [round(r[c], 4) for c in ("value", "ci_low", "ci_high")] for r in rows},
    }
