"""Scored steps and solutions next to the truth: what an evaluator is measured on.

The truth of a solution is its graded answer. The truth of a step comes from the domain's exact
checker, where it has one. It is used for audit only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.graded import GradedPool, PoolError, load_step_logits
from e2h_pipeline.evaluation.step_benchmarks.process_bench import NO_ERROR, first_error_index
from e2h_pipeline.registry import EVALUATOR_KINDS
from e2h_pipeline.reranking.aggregate import (
    Aggregation,
    last,
    log_solution_scores,
    product,
    step_probabilities,
)

if TYPE_CHECKING:
    from e2h_pipeline.problems.domain import StepChecker

_SOLUTION_SCORES: Mapping[str, Aggregation] = {"product": product, "last": last}


@dataclass(frozen=True)
class Judged:
    """Scored items with their truth: steps of solutions, or whole solutions.

    Attributes:
        kind: "step" or "outcome".
        ranking: (items,) log score, to rank by.
        probability: (items,) score in [0, 1], to calibrate by.
        right: (items,)
        problem: (items,) row of the item's problem in the graded pool.
        position: (items,) number of the step in its solution, from 1; of a solution, its steps.
        length: (items,) steps of the solution.
    """

    kind: str
    ranking: NDArray[np.float64]
    probability: NDArray[np.float64]
    right: NDArray[np.bool_]
    problem: NDArray[np.int64]
    position: NDArray[np.int64]
    length: NDArray[np.int64]

    def of_problems(self, mask: NDArray[np.bool_]) -> Judged:
        """The items of some problems only."""
        kept = mask[self.problem]
        return Judged(self.kind, *(values[kept] for values in self._columns()))

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.ranking, self.probability, self.right, self.problem, self.position, self.length


@dataclass(frozen=True)
class FirstErrors:
    """Finished solutions with the first wrong segment as the checker and as the evaluator has it (-1: none).

    Attributes:
        problem: (solutions,) row of the solution's problem in the graded pool.
    """

    truth: NDArray[np.int64]
    named: NDArray[np.int64]
    problem: NDArray[np.int64]


def solution_score(kind: str) -> Aggregation:
    """How step scores become a solution's score, as the kind of evaluator says (`solution_aggregation`).

    An evaluator of whole solutions speaks at the last position. The paper takes the product for
    evaluators that were trained on steps, OPRM among them.
    """
    return _SOLUTION_SCORES[EVALUATOR_KINDS.load(kind).solution_aggregation]


def checked_steps(
    pool: GradedPool, scores: Path, checker: StepChecker, threshold: float
) -> tuple[Judged, FirstErrors]:
    """Steps of finished solutions up to the first error, with the checker's labels; and the first errors.

    A cut-off solution ends in half a step, which is neither right nor wrong. So those solutions are
    left out.

    Args:
        scores: table folder of the rerank_scores artifact.
        checker: the domain's.
        threshold: probability below which the evaluator names a step wrong.

    Raises:
        PoolError: the scores are not of these solutions.
    """
    logits, offsets = load_step_logits(scores, pool)
    probability = step_probabilities(logits)
    finished, labels = np.flatnonzero(pool.finished.ravel()), np.full(len(logits), -1)
    truth, named = np.full(len(finished), NO_ERROR), np.full(len(finished), NO_ERROR)
    for row, i in enumerate(finished.tolist()):
        found = checker(pool.questions[i // pool.samples], pool.completions[i])
        start, end = offsets[i], offsets[i + 1]
        if len(found) != end - start:
            raise PoolError(
                f"{scores}: sample {i % pool.samples} of {pool.problem_ids[i // pool.samples]} has "
                f"{end - start} step scores for {len(found)} segments; score the pool again"
            )
        labels[start:end] = found
        truth[row] = found.index(0) if 0 in found else NO_ERROR
        named[row] = first_error_index(probability[start:end].tolist(), threshold)
    known = labels >= 0
    lengths = np.diff(offsets)
    problem_of = np.repeat(np.arange(len(lengths)) // pool.samples, lengths)
    position = np.arange(len(logits)) - np.repeat(offsets[:-1], lengths) + 1
    steps = Judged(
        "step",
        logits[known],
        probability[known],
        labels[known] == 1,
        problem_of[known],
        position[known],
        np.repeat(lengths, lengths)[known],
    )
    return steps, FirstErrors(truth, named, finished // pool.samples)


def outcomes(pool: GradedPool, scores: Path, aggregation: Aggregation) -> Judged:
    """Solutions with an answer, scored by an aggregation of their steps; right where the answer is.

    Args:
        scores: table folder of the rerank_scores artifact.
    """
    logits, offsets = load_step_logits(scores, pool)
    answered = pool.answered.ravel()
    ranking = log_solution_scores(logits, offsets, aggregation)[answered]
    problem_of = np.arange(pool.correct.size)[answered] // pool.samples
    lengths = np.diff(offsets)[answered]
    return Judged(
        "outcome", ranking, np.exp(ranking), pool.correct.ravel()[answered], problem_of, lengths, lengths
    )
