"""How well scores put right before wrong: AUROC with ties, its interval over problems, reliability.

AUROC = P(score of a right item > score of a wrong one) + half the ties, by ranks
(Mann and Whitney 1947). For the interval whole problems are resampled; with U[a, b] the wins of
problem a's right items over problem b's wrong ones, right[a] and wrong[b] the numbers of items,
and w the times each problem was drawn,

    AUROC(w) = (sum_{a != b} w_a w_b U[a, b] + sum_a w_a U[a, a]) / (the same of right[a] wrong[b]),

so one matrix of problems x problems serves every resample, however many items there are. Copies of
one problem are not compared with each other: they would count its inner pairs too often, and
shift the interval where scores rank better within problems than between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.statistics.bootstrap import Bootstrap

# Scores are compared on at most this many values when the win matrix is made; beyond it, quantile
# bins. Two items in one bin count as a tie, which moves an interval by less than 1 / 2048.
_BINS = 2048


@dataclass(frozen=True)
class RankingQuality:
    """AUROC over all pairs and over pairs within one problem, each (estimate, low, high); None where
    there are no such pairs. Reranking compares solutions of one problem only."""

    overall: tuple[float, float, float] | None
    within: tuple[float, float, float] | None
    count: int


def auroc(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, ties counted half; None where one of the two classes is empty.

    Args:
        scores: (items,) higher should mean right.
        right: (items,)
    """
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    ordered = np.sort(scores)
    chosen = scores[right]
    # Mean rank of a tied run, counted from 0: halfway between its two ends.
    ranks = (np.searchsorted(ordered, chosen, "left") + np.searchsorted(ordered, chosen, "right") - 1) / 2
    return float((ranks.sum() - positives * (positives - 1) / 2) / (positives * negatives))


def ranking_quality(
    scores: NDArray[np.floating],
    right: NDArray[np.bool_],
    problems: NDArray[np.integer],
    bootstrap: Bootstrap,
) -> RankingQuality:
    """AUROC with intervals from resampled problems.

    Args:
        scores: (items,)
        right: (items,)
        problems: (items,) number of the problem each item belongs to.
    """
    names, cluster = np.unique(problems, return_inverse=True)
    wins, positives, negatives = win_matrix(scores, right, cluster, len(names))
    estimate = auroc(scores, right)
    if estimate is None:
        return RankingQuality(None, None, len(scores))
    drawn = bootstrap.counts(len(names))
    pairs = positives * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        overall = resampled_auroc(wins, positives, negatives, drawn)
        within = (drawn @ wins.diagonal()) / (drawn @ pairs)
    low, high = bootstrap.bounds(overall[:, None])
    return RankingQuality(
        (estimate, float(low[0]), float(high[0])), _within(wins, pairs, within, bootstrap), len(scores)
    )


def resampled_auroc(
    wins: NDArray[np.float64],
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    drawn: NDArray[np.float64],
) -> NDArray[np.float64]:
    """AUROC of each resample, (resamples,); nan where it has no pair.

    Args:
        wins, positives, negatives: `win_matrix`.
        drawn: (resamples, clusters) times each cluster was drawn.
    """
    copies = drawn * (drawn - 1)
    won = ((drawn @ wins) * drawn).sum(axis=1) - copies @ wins.diagonal()
    pairs = (drawn @ positives) * (drawn @ negatives) - copies @ (positives * negatives)
    return won / pairs


def _within(
    wins: NDArray[np.float64],
    pairs: NDArray[np.float64],
    resampled: NDArray[np.float64],
    bootstrap: Bootstrap,
) -> tuple[float, float, float] | None:
    if not pairs.any():
        return None
    low, high = bootstrap.bounds(resampled[:, None])
    return float(wins.diagonal().sum() / pairs.sum()), float(low[0]), float(high[0])


def win_matrix(
    scores: NDArray[np.floating], right: NDArray[np.bool_], cluster: NDArray[np.integer], clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Wins of each cluster's right items over each cluster's wrong ones (ties half), and both counts.

    Exact where there are at most `_BINS` distinct scores, on quantile bins beyond.

    Returns:
        (clusters, clusters) wins, (clusters,) right items, (clusters,) wrong items.
    """
    bins = _ranked_bins(scores)
    width = int(bins.max(initial=0)) + 1
    cells = cluster * width + bins
    positives, negatives = (
        np.bincount(cells[mask], minlength=clusters * width).reshape(clusters, width).astype(np.float64)
        for mask in (right, ~right)
    )
    beaten = np.cumsum(negatives, axis=1) - negatives / 2
    return positives @ beaten.T, positives.sum(axis=1), negatives.sum(axis=1)


def _ranked_bins(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    values, index = np.unique(scores, return_inverse=True)
    if len(values) <= _BINS:
        return index.astype(np.intp)
    edges = np.unique(np.sort(scores)[np.arange(1, _BINS) * len(scores) // _BINS])
    return np.searchsorted(edges, scores, side="right")


@dataclass(frozen=True)
class ReliabilityBin:
    """Items whose score lies in [low, high): how sure the evaluator was, and how often it was right."""

    low: float
    high: float
    count: int
    mean_score: float
    share_right: float


def reliability(
    scores: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10
) -> list[ReliabilityBin]:
    """Equal-width bins of scores in [0, 1] (the last includes 1); empty bins are left out."""
    index = score_bins(scores, bins)
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=scores, minlength=bins)
    rights = np.bincount(index, weights=right, minlength=bins)
    return [
        ReliabilityBin(b / bins, (b + 1) / bins, int(n), float(sums[b] / n), float(rights[b] / n))
        for b, n in enumerate(counts)
        if n
    ]


def score_bins(scores: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """Equal-width bin of each score in [0, 1]; the last bin includes 1."""
    return np.minimum((np.asarray(scores) * bins).astype(np.int64), bins - 1)
