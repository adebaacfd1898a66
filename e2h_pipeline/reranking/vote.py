"""Majority vote, weighted vote, best-of-N and pass@N on one problem's samples (paper, appendix L).

Votes go to answer classes. A sample without an answer (class -1) has no vote; if no sample has an
answer, the vote is wrong. Tied classes share the credit equally, so nothing depends on the order
of samples. Best-of-N and pass@N are exact expectations over all subsets of N out of M samples, in
closed form; with samples sorted by score, and c their correctness,

    E[best-of-N] = sum_i c_(i) C(i - 1, N - 1) / C(M, N)        i = 1 .. M, ascending score
    pass@N       = 1 - C(M - right, N) / C(M, N)                (Chen et al. 2021, arXiv 2107.03374)

where samples with equal scores share their probability equally.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Sums of weights that differ by rounding only are ties; without this the order of samples decides.
_TIE = 1e-12


def vote_accuracy(
    subsets: NDArray[np.intp],
    classes: NDArray[np.integer],
    correct: NDArray[np.bool_],
    log_weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Expected accuracy of each weighting's vote, mean over the given subsets; shape (weightings,).

    Args:
        subsets: (draws, n) indices of samples.
        classes: (samples,) answer class, -1 for no answer.
        correct: (samples,) whether the answer is right. A class whose members disagree (a grader
            is not transitive) counts as its share of right members.
        log_weights: (weightings, samples) log of each sample's weight; a row of zeros is the
            majority vote. If all weights in a subset are 0 (-inf), they count as equal.
    """
    count = int(classes.max(initial=-1)) + 1
    if count == 0:
        return np.zeros(len(log_weights))
    picked = classes[subsets]
    rows = np.arange(len(subsets))[:, None] * (count + 1)
    cells = (rows + np.where(picked >= 0, picked, count)).ravel()
    voters = _tally(cells, None, len(subsets), count)
    credit = _class_credit(classes, correct, count)
    return np.array(
        [
            _share(_tally(cells, _weights(row[subsets], picked), len(subsets), count), voters, credit)
            if row.any()
            else _share(voters, voters, credit)
            for row in log_weights
        ]
    )


def _class_credit(
    classes: NDArray[np.integer], correct: NDArray[np.bool_], count: int
) -> NDArray[np.float64]:
    answered = classes >= 0
    members = np.bincount(classes[answered], minlength=count)
    right = np.bincount(classes[answered], weights=correct[answered], minlength=count)
    return right / np.maximum(members, 1)


def _weights(log_weights: NDArray[np.float64], picked: NDArray[np.integer]) -> NDArray[np.float64]:
    """Weights relative to the largest of each subset: only ratios decide, and none underflows."""
    log_weights = np.where(picked >= 0, log_weights, -np.inf)
    top = log_weights.max(axis=1, keepdims=True)
    hopeless = np.isneginf(top)
    return np.where(hopeless, 1.0, np.exp(log_weights - np.where(hopeless, 0.0, top))).ravel()


def _tally(
    cells: NDArray[np.intp], weights: NDArray[np.float64] | None, draws: int, count: int
) -> NDArray[np.float64]:
    """Votes per subset and class, (draws, count); the last column, of samples without answer, is cut off."""
    votes = np.bincount(cells, weights=weights, minlength=draws * (count + 1))
    return votes.reshape(draws, count + 1)[:, :count].astype(np.float64)


def _share(
    votes: NDArray[np.float64], voters: NDArray[np.float64], credit: NDArray[np.float64]
) -> np.floating:
    leads = (voters > 0) & (votes >= votes.max(axis=1, keepdims=True) * (1 - _TIE))
    return np.mean((leads @ credit) / np.maximum(leads.sum(axis=1), 1))


def subset_shares(samples: int, counts: Sequence[int]) -> NDArray[np.float64]:
    """C(i, N) / C(M, N) for every N in `counts` and i = 0 .. M; shape (counts, M + 1).

    The probability that all N drawn samples are among a given i of the M.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, samples + 1)))])
    table = np.zeros((len(counts), samples + 1))
    for row, n in zip(table, counts, strict=True):
        i = np.arange(n, samples + 1)
        chosen = log_factorial[i] - log_factorial[i - n]
        row[n:] = np.exp(chosen - chosen[-1])
    return table


def best_of_n(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Exact expected accuracy of the best-scored of N samples, for every N of `shares`; shape (counts,).

    Args:
        scores: (samples,) any monotone score; -inf for a sample that must lose to all others.
        correct: (samples,)
        shares: `subset_shares(samples, counts)`.
    """
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, scores, side="left")
    upto = np.searchsorted(ordered, scores, side="right")
    chosen = (shares[:, upto] - shares[:, below]) / (upto - below)
    return np.clip(chosen @ correct, 0.0, 1.0)


def pass_at_n(correct: NDArray[np.bool_], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact probability that at least one of N samples is right, for every N of `shares`; shape (counts,)."""
    return 1.0 - shares[:, len(correct) - int(correct.sum())]
