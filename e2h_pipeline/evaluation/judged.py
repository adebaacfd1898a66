"""TODO: docstring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.graded import GradedPool, PoolError, load_step_logits
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    NO_ERROR,
    first_error,
)
from e2h_pipeline.reranking.aggregate import log_solution_scores, step_probabilities

if TYPE_CHECKING:
    pass


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


def solution_score(evaluator: str) -> str:
    """How step scores become a solution's score: an evaluator of whole solutions speaks at the last position.

    The paper takes the product for evaluators that were trained on steps, OPRM among them.
    """
    return "last" if evaluator.endswith(("_orm", "_pairwise")) else "product"


def checked_steps(pool: GradedPool, scores: Path, threshold: float) -> tuple[Judged, FirstErrors]:
    """Steps of finished solutions up to the first error, with the exact checker's labels; and the first errors.

    A cut-off solution ends in half a step, which is neither right nor wrong, so those are left out.
    """
    from e2h_pipeline.problems.ladder.checker import step_labels

    logits, offsets = load_step_logits(scores, pool)
    probability = step_probabilities(logits)
    finished, labels = np.flatnonzero(pool.finished.ravel()), np.full(len(logits), -1)
    truth, named = np.full(len(finished), NO_ERROR), np.full(len(finished), NO_ERROR)
    for row, i in enumerate(finished.tolist()):
        found = step_labels(pool.questions[i // pool.samples], pool.completions[i])
        start, end = offsets[i], offsets[i + 1]
        if len(found) != end - start:
            raise PoolError(
                f"{scores}: sample {i % pool.samples} of {pool.problem_ids[i // pool.samples]} has "
                f"{end - start} step scores for {len(found)} segments; score the pool again"
            )
        labels[start:end] = found
        truth[row] = found.index(0) if 0 in found else NO_ERROR
        named[row] = first_error(probability[start:end].tolist(), threshold)
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


def outcomes(pool: GradedPool, scores: Path, aggregation: str = "product") -> Judged:
    """Solutions with an answer, scored by the product of their steps (or another aggregation); right where
    the answer is."""
    logits, offsets = load_step_logits(scores, pool)
    answered = pool.answered.ravel()
    ranking = log_solution_scores(logits, offsets, aggregation)[answered]
    problem_of = np.arange(pool.correct.size)[answered] // pool.samples
    lengths = np.diff(offsets)[answered]
    return Judged(
        "outcome", ranking, np.exp(ranking), pool.correct.ravel()[answered], problem_of, lengths, lengths
    )
