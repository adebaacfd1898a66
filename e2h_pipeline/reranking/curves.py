"""Accuracy over N for every reranking method, problem by problem, from one stored sample pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.reranking.draws import random_generator, sample_counts, subsets
from e2h_pipeline.reranking.vote import best_of_n, pass_at_n, subset_shares, vote_accuracy


@dataclass(frozen=True)
class RerankPool:
    """Graded samples: P problems with M samples each.

    Attributes:
        problem_ids: P ids.
        classes: (P, M) answer class within the problem, -1 where there is no answer.
        correct: (P, M) whether the answer is right.
        log_scores: aggregation -> (P, M) log of the solution score; empty for votes without
            evaluator.
    """

    problem_ids: tuple[str, ...]
    classes: NDArray[np.int64]
    correct: NDArray[np.bool_]
    log_scores: Mapping[str, NDArray[np.float64]]

    @property
    def samples(self) -> int:
        """M."""
        return self.classes.shape[1]


def vote_curves(
    pool: RerankPool, counts: list[int], *, draws: int, seed: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Expected accuracy of majority and weighted votes: (method, aggregation) -> (P, len(counts)).

    Args:
        pool: P problems with M samples each.
        counts: the N to vote with, none above M.
        draws: seeded subsets per problem and N, the same for every method; none are needed, and the
            result is exact, for N = 1, N = M and wherever all subsets can be had.
        seed: of the subsets.
    """
    names = [("majority", ""), *(("weighted-vote", name) for name in pool.log_scores)]
    accuracy = np.zeros((len(names), len(pool.problem_ids), len(counts)))
    for p, problem in enumerate(pool.problem_ids):
        weights = np.stack([np.zeros(pool.samples), *(s[p] for s in pool.log_scores.values())])
        for j, n in enumerate(counts):
            drawn = subsets(pool.samples, n, draws, random_generator(seed, "rerank", problem, n))
            accuracy[:, p, j] = vote_accuracy(drawn, pool.classes[p], pool.correct[p], weights)
    return dict(zip(names, accuracy, strict=True))


def selection_curves(pool: RerankPool, counts: list[int]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Exact expected accuracy of best-of-N and pass@N: (method, aggregation) -> (P, len(counts)).

    A sample without an answer is chosen only if no drawn sample has one.
    """
    shares = subset_shares(pool.samples, counts)
    curves = {("pass", ""): np.stack([pass_at_n(right, shares) for right in pool.correct])}
    for name, scores in pool.log_scores.items():
        # A finished solution of score 0 must still beat an unfinished one, hence the floor.
        usable = np.where(pool.classes >= 0, np.maximum(scores, np.finfo(float).min), -np.inf)
        rows = [best_of_n(s, right, shares) for s, right in zip(usable, pool.correct, strict=True)]
        curves["best-of-n", name] = np.stack(rows)
    return curves


def method_curves(
    pool: RerankPool, *, draws: int, seed: int
) -> tuple[list[int], dict[tuple[str, str], NDArray[np.float64]]]:
    """All methods over N = 1, 2, 4 .. M: the counts, and (method, aggregation) -> (P, len(counts))."""
    counts = sample_counts(pool.samples)
    return counts, {**vote_curves(pool, counts, draws=draws, seed=seed), **selection_curves(pool, counts)}
