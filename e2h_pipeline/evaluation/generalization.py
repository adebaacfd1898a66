"""The evaluator_generalization stage: does an evaluator trained on easy levels judge hard solutions?

Where the domain has an exact checker of steps, every step has a true label, and step AUROC by level
is the cleanest measure there is. The outcome can be measured everywhere: does the score of a
solution put solutions with a right answer first, over all solutions and within one problem?
Reranking compares solutions of one problem. True labels are used here for audit only.

Reliability, calibration error and the slope of the scores of right steps over length show a drift
that AUROC cannot: where the scores of right steps sag with length, the product of a long good
solution is low.

The rows `*_change`, `*_kept` and `*_kept_over_generator` say whether the evaluator generalizes, and
whether it does so better than the generator (see `transfer`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import GradedPool, PoolFiles, load_graded
from e2h_pipeline.evaluation.judged import FirstErrors, Judged, checked_steps, outcomes, solution_score
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    Threshold,
    first_error_quality,
    quality_rows,
)
from e2h_pipeline.evaluation.transfer import (
    GENERATOR,
    changes_from_easy,
    harder_groups,
    measured_accuracy,
    measured_auroc,
    resampling_counts,
)
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.statistics.bootstrap import Bootstrap, ratio_intervals
from e2h_pipeline.statistics.calibration import calibration_error, slope
from e2h_pipeline.statistics.levels import level_groups
from e2h_pipeline.statistics.ranking import ranking_quality, reliability

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import Domain, StepChecker
    from e2h_pipeline.recipe import Evaluation


def evaluator_generalization(
    files: PoolFiles,
    domain: Domain,
    checker: StepChecker | None,
    threshold: Threshold | None,
    evaluation: Evaluation,
    work: Work,
) -> dict[str, Any]:
    """Write `metrics.parquet`, `reliability.parquet` and two plots.

    The plots are `step_auroc.png` by level (`outcome_auroc.png` without a checker) and
    `generalization.png`, what evaluator and generator keep of their lead over chance.

    Args:
        domain: finds answers.
        checker: the domain's, says which steps are right; None where it has none.
        threshold: step probability below which a step counts as named wrong, chosen on easy
            validation (`easy_steps.easy_threshold`). Without one, first errors are not judged.

    Returns:
        Counts, the threshold, and each AUROC by level as [value, low, high].
    """
    with sharded_grader(evaluation.grader, work.folder, work.runner, work.reporter) as judge:
        pool = load_graded(files.samples / "data", files.gold, judge, domain.answer_of)
    scores, out, evaluator = files.scores / "data", work.out, files.evaluator
    judged = [outcomes(pool, scores, solution_score(files.kind))]
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    groups = level_groups(pool.levels, evaluation.easy_levels)
    rows: list[dict[str, Any]] = []
    if checker:
        steps, errors = checked_steps(pool, scores, checker, threshold.value if threshold else 0.0)
        judged.insert(0, steps)
        work.reporter.message(f"checked {len(steps.right):,} steps")
        if threshold:
            rows += _first_error_rows(errors, groups, bootstrap)
    rows += [row for items in judged for row in _metric_rows(items, groups, bootstrap)]
    rows += _transfer_rows(pool, judged, groups, evaluation.easy_levels, bootstrap)
    rows = [{"evaluator": evaluator, **row} for row in rows]
    bins = [row for items in judged for row in _reliability_rows(items, groups, evaluator)]
    _write(out, rows, bins)
    metric = f"{judged[0].kind}_auroc"
    _plot([row for row in rows if row["metric"] == metric], out / f"{metric}.png")
    _plot_kept(rows, evaluator, out / "generalization.png")
    return {
        "grader": judge.version,
        **pool.summary(),
        "items": {i.kind: len(i.right) for i in judged},
        "threshold": asdict(threshold) if threshold else None,
        "auroc": _headline(rows, "auroc"),
        "generalizes": _headline(rows, "kept"),
    }


def _metric_rows(
    items: Judged, groups: dict[str, NDArray[np.bool_]], bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    for levels, mask in groups.items():
        part = items.of_problems(mask)
        quality = ranking_quality(part.ranking, part.right, part.problem, bootstrap)
        estimates = {
            "auroc": quality.overall,
            "auroc_within": quality.within,
            "mean_right": _mean_score(part, part.right, bootstrap),
            "mean_wrong": _mean_score(part, ~part.right, bootstrap),
            "ece": calibration_error(part.probability, part.right, part.problem, bootstrap)
            if len(part.right)
            else None,
            "position_slope": _slope(part, part.position, bootstrap) if items.kind == "step" else None,
            "length_slope": _slope(part, part.length, bootstrap),
        }
        for metric, estimate in estimates.items():
            if estimate is not None:
                yield _row(f"{items.kind}_{metric}", levels, estimate, quality.count)


def _first_error_rows(
    errors: FirstErrors, groups: dict[str, NDArray[np.bool_]], bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    for levels, mask in groups.items():
        kept = mask[errors.problem]
        quality = first_error_quality(errors.named[kept], errors.truth[kept], errors.problem[kept], bootstrap)
        for row in quality_rows(quality, levels):
            estimate = (row["value"], row["ci_low"], row["ci_high"])
            yield _row(f"first_error_{row['metric']}", levels, estimate, row["count"])


def _transfer_rows(
    pool: GradedPool,
    judged: Sequence[Judged],
    groups: dict[str, NDArray[np.bool_]],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """The generator's accuracy by level, and every measure relative to easy."""
    drawn = resampling_counts(groups, bootstrap)
    found = {
        levels: {GENERATOR: measured_accuracy(pool.correct, mask, drawn[levels])}
        | {
            f"{i.kind}_auroc": measured
            for i in judged
            if (measured := measured_auroc(i.ranking, i.right, i.problem, mask, drawn[levels]))
        }
        for levels, mask in groups.items()
    }
    for levels, measures in found.items():
        accuracy = measures[GENERATOR]
        low, high = bootstrap.bounds(accuracy.resampled[:, None])
        yield _row(GENERATOR, levels, (accuracy.value, float(low[0]), float(high[0])), accuracy.count)
    if "easy" not in found:
        return
    for levels in harder_groups(found, easy_levels):
        for c in changes_from_easy(found["easy"], found[levels], levels, bootstrap):
            yield _row(c.metric, c.levels, (c.value, c.low, c.high), c.count)


def _row(metric: str, levels: str, estimate: tuple[float, float, float], count: int) -> dict[str, Any]:
    value, low, high = estimate
    return {
        "metric": metric,
        "levels": levels,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "count": count,
    }


def _slope(
    items: Judged, lengths: NDArray[np.int64], bootstrap: Bootstrap
) -> tuple[float, float, float] | None:
    """Slope of the scores of right items over a length."""
    right = items.right
    return slope(lengths[right], items.probability[right], items.problem[right], bootstrap)


def _mean_score(
    items: Judged, chosen: NDArray[np.bool_], bootstrap: Bootstrap
) -> tuple[float, float, float] | None:
    if not chosen.any():
        return None
    cluster = np.unique(items.problem, return_inverse=True)[1]
    counts = np.bincount(cluster, weights=chosen.astype(np.float64))
    sums = np.bincount(cluster, weights=np.where(chosen, items.probability, 0.0))
    return ratio_intervals(sums, counts, bootstrap)


def _reliability_rows(
    items: Judged, groups: dict[str, NDArray[np.bool_]], evaluator: str
) -> Iterator[dict[str, Any]]:
    for levels, mask in groups.items():
        part = items.of_problems(mask)
        for bin_ in reliability(part.probability, part.right):
            yield {"evaluator": evaluator, "kind": items.kind, "levels": levels, **asdict(bin_)}


def _write(out: Path, rows: list[dict[str, Any]], bins: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    write_table(out / "metrics.parquet", pa.Table.from_pylist(rows, generalization_schema()))
    write_table(out / "reliability.parquet", pa.Table.from_pylist(bins))


def generalization_schema() -> pa.Schema:
    """Columns of `metrics.parquet`: one row per metric and level group; `count` items were judged."""
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in ("evaluator", "metric", "levels")]
    numbers = [pa.field(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    return pa.schema([*texts, *numbers, pa.field("count", pa.int64())])


def _headline(rows: Collection[dict[str, Any]], part: str) -> dict[str, dict[str, list[float]]]:
    """The metrics whose name ends in `part`, its `_within` or its `_over_generator`, by level."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["metric"].removesuffix("_within").removesuffix("_over_generator").endswith(part):
            found.setdefault(row["metric"], {})[row["levels"]] = [
                round(row[c], 4) for c in ("value", "ci_low", "ci_high")
            ]
    return found


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """AUROC by level with intervals, a small PNG for the Dagster page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    x, value = range(len(rows)), np.array([row["value"] for row in rows])
    reach = np.array([[row["value"] - row["ci_low"], row["ci_high"] - row["value"]] for row in rows]).T
    axes.errorbar(x, value, np.maximum(reach, 0).reshape(2, -1), fmt="o", color="#0072B2", capsize=3)
    axes.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xticks(x, [row["levels"] for row in rows])
    axes.set(xlabel="levels", ylabel=path.stem.replace("_auroc", " AUROC"), ylim=(min(0.45, *value, 1), 1.01))
    axes.spines[["top", "right"]].set_visible(False)
    # Without this, the file holds the version of matplotlib: equal numbers must give equal bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})


_KEPT = {
    "step_auroc_kept": ("steps", "#0072B2", "o"),
    "outcome_auroc_kept": ("solutions", "#009E73", "s"),
    f"{GENERATOR}_kept": ("generator", "#D55E00", "D"),
}


def _plot_kept(rows: list[dict[str, Any]], evaluator: str, path: Path) -> None:
    """What evaluator and generator keep of their easy lead over chance, by harder level."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["levels"] for row in rows if row["metric"] in _KEPT))
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for number, (metric, (label, color, marker)) in enumerate(_KEPT.items()):
        points = [row for row in rows if row["metric"] == metric]
        if not points:
            continue
        x = [names.index(row["levels"]) + (number - 1) * 0.12 for row in points]
        value = np.array([row["value"] for row in points])
        reach = [[row["value"] - row["ci_low"], row["ci_high"] - row["value"]] for row in points]
        bars = np.maximum(np.array(reach).T, 0)
        axes.errorbar(x, value, bars, fmt=marker, color=color, capsize=3, label=label)
    axes.axhline(1, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="levels", ylabel="lead over chance kept", title=f"{evaluator}: 1 = as on easy")
    if names:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
