"""The evaluator_generalization stage: does an evaluator trained on easy levels judge hard solutions?

Where an exact checker exists (the ladder) every step has a true label, and step AUROC by level is
the cleanest measure there is. Everywhere the outcome can be measured: does the product of step
scores put solutions with a right answer first, over all solutions and within one problem, which is
where reranking compares. True labels are used here for audit only.

Reliability and the mean score of right steps show a drift that AUROC cannot: scores of right steps
that sag with length drown long good solutions in the product.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import write_table
from e2h_pipeline.evaluation.graded import GradedPool, PoolError, load_graded, load_step_logits
from e2h_pipeline.evaluation.ranking_metrics import ranking_quality, reliability
from e2h_pipeline.evaluation.statistics import Bootstrap, level_groups, ratio_intervals
from e2h_pipeline.grading.equivalence import grader
from e2h_pipeline.reranking.aggregate import log_solution_scores, step_probabilities

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.recipe import Evaluation, Problems
    from e2h_pipeline.reporter import Reporter


@dataclass(frozen=True)
class Judged:
    """Scored items with their truth: steps of solutions, or whole solutions.

    Attributes:
        kind: "step" or "outcome".
        ranking: (items,) log score, to rank by.
        probability: (items,) score in [0, 1], to calibrate by.
        right: (items,)
        problem: (items,) row of the item's problem in the graded pool.
    """

    kind: str
    ranking: NDArray[np.float64]
    probability: NDArray[np.float64]
    right: NDArray[np.bool_]
    problem: NDArray[np.int64]

    def of_problems(self, mask: NDArray[np.bool_]) -> Judged:
        """The items of some problems only."""
        kept = mask[self.problem]
        return Judged(
            self.kind, self.ranking[kept], self.probability[kept], self.right[kept], self.problem[kept]
        )


def evaluator_generalization(
    samples: Path,
    scores: Path,
    gold: Path,
    out: Path,
    *,
    evaluator: str,
    problems: Problems,
    evaluation: Evaluation,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write `metrics.parquet`, `reliability.parquet` and a plot.

    The plot is `step_auroc.png`, or `outcome_auroc.png` where no checker exists.

    Args:
        samples: benchmark_samples artifact.
        scores: rerank_scores artifact.
        gold: gold_answers artifact.
        evaluator: who scored.
        problems: recipe section; the ladder has an exact checker.

    Returns:
        Counts, and each AUROC by level as {"value", "ci_low", "ci_high"}.
    """
    with grader(evaluation.grader) as judge:
        pool = load_graded(samples / "data", gold, judge)
    judged = [outcomes(pool, scores / "data")]
    if problems.source == "ladder":
        judged.insert(0, checked_steps(pool, scores / "data"))
        reporter.message(f"checked {len(judged[0].right):,} steps")
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, seed)
    groups = level_groups(pool.levels, evaluation.easy_levels)
    rows = [row for items in judged for row in _metric_rows(items, groups, evaluator, bootstrap)]
    bins = [row for items in judged for row in _reliability_rows(items, groups, evaluator)]
    _write(out, rows, bins)
    metric = f"{judged[0].kind}_auroc"
    _plot([row for row in rows if row["metric"] == metric], out / f"{metric}.png")
    return {
        "grader": judge.version,
        **pool.summary(),
        "items": {i.kind: len(i.right) for i in judged},
        "auroc": _headline(rows),
    }


def checked_steps(pool: GradedPool, scores: Path) -> Judged:
    """Steps of finished solutions up to the first error, with the exact checker's labels.

    A cut-off solution ends in half a step, which is neither right nor wrong, so those are left out.
    """
    from e2h_pipeline.problems.ladder import step_labels

    logits, offsets = load_step_logits(scores, pool)
    finished, labels = pool.finished.ravel(), np.full(len(logits), -1)
    for i in np.flatnonzero(finished).tolist():
        found = step_labels(pool.questions[i // pool.samples], pool.completions[i])
        start, end = offsets[i], offsets[i + 1]
        if len(found) != end - start:
            raise PoolError(
                f"{scores}: sample {i % pool.samples} of {pool.problem_ids[i // pool.samples]} has "
                f"{end - start} step scores for {len(found)} segments; score the pool again"
            )
        labels[start:end] = found
    known = labels >= 0
    problem_of = np.repeat(np.arange(len(finished)) // pool.samples, np.diff(offsets))
    return Judged(
        "step", logits[known], step_probabilities(logits[known]), labels[known] == 1, problem_of[known]
    )


def outcomes(pool: GradedPool, scores: Path) -> Judged:
    """Solutions with an answer, scored by the product of their steps; right where the answer is."""
    logits, offsets = load_step_logits(scores, pool)
    answered = pool.answered.ravel()
    product = log_solution_scores(logits, offsets, "product")[answered]
    problem_of = np.arange(pool.correct.size)[answered] // pool.samples
    return Judged("outcome", product, np.exp(product), pool.correct.ravel()[answered], problem_of)


def _metric_rows(
    items: Judged, groups: dict[str, NDArray[np.bool_]], evaluator: str, bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    for levels, mask in groups.items():
        part = items.of_problems(mask)
        quality = ranking_quality(part.ranking, part.right, part.problem, bootstrap)
        estimates = {
            f"{items.kind}_auroc": quality.overall,
            f"{items.kind}_auroc_within": quality.within,
            f"{items.kind}_mean_right": _mean_score(part, part.right, bootstrap),
            f"{items.kind}_mean_wrong": _mean_score(part, ~part.right, bootstrap),
        }
        for metric, estimate in estimates.items():
            if estimate is not None:
                value, low, high = estimate
                row = {"evaluator": evaluator, "metric": metric, "levels": levels, "value": value}
                yield {**row, "ci_low": low, "ci_high": high, "count": quality.count}


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

    write_table(out / "metrics.parquet", pa.Table.from_pylist(rows, metrics_schema()))
    write_table(out / "reliability.parquet", pa.Table.from_pylist(bins))


def metrics_schema() -> pa.Schema:
    """Columns of `metrics.parquet`: one row per metric and level group; `count` items were judged."""
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in ("evaluator", "metric", "levels")]
    numbers = [pa.field(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    return pa.schema([*texts, *numbers, pa.field("count", pa.int64())])


def _headline(rows: Collection[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if "auroc" in row["metric"]:
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
    # A fixed metadata set keeps the file's bytes equal for equal numbers.
    figure.savefig(path, dpi=120, metadata={"Software": None})
