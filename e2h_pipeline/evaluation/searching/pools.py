"""Pools of samples that searches found: answers chosen from them, and their cost.

A pool of N samples holds N / n disjoint blocks of n; the value of a method at n is its mean over
the blocks, so that one pool serves every n. Blocks are made of whole searches. Answers of a block
are chosen by majority, by weighted vote, or as the best.

What a block costs is what was drawn and read for it. Independent samples are read only where the
evaluator chooses; a search has read its samples already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.graded import GradedPool, grade_samples, load_step_logits, vote_classes
from e2h_pipeline.registry import AGGREGATIONS
from e2h_pipeline.reranking.aggregate import by_preference, log_solution_scores
from e2h_pipeline.reranking.vote import vote_accuracy

if TYPE_CHECKING:
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.problems.domain import AnswerOf

MAJORITY, WEIGHTED, BEST = "majority", "weighted-vote", "best-of-n"
RULES = (MAJORITY, WEIGHTED, BEST)
INDEPENDENT, GREEDY = "independent", "greedy"
_COSTS = ("drawn_tokens", "read_tokens")


@dataclass(frozen=True)
class Pool:
    """One search method on P problems with M samples each.

    Attributes:
        name: of the method.
        together: samples that are found together.
        levels: (P,)
        classes: (P, M) answer class, -1 where there is no answer.
        correct: (P, M)
        scores: rule -> (P, M) logarithm of each solution's score by the aggregation of the rule.
        aggregations: rule -> name of that aggregation.
        drawn, read: (P, M) tokens; `read` is NaN where the search read nothing.
        own: (P, M) tokens of the samples themselves.
    """

    name: str
    together: int
    problem_ids: tuple[str, ...]
    levels: NDArray[np.int64]
    classes: NDArray[np.int64]
    correct: NDArray[np.bool_]
    scores: Mapping[str, NDArray[np.float64]]
    aggregations: Mapping[str, str]
    drawn: NDArray[np.float64]
    read: NDArray[np.float64]
    own: NDArray[np.float64]

    @property
    def samples(self) -> int:
        """M."""
        return self.classes.shape[1]

    def counts(self) -> list[int]:
        """The n that are reported: whole searches, doubled up to M."""
        found = [self.together]
        while 2 * found[-1] <= self.samples:
            found.append(2 * found[-1])
        return found

    def blocks(self, n: int) -> NDArray[np.intp]:
        """(blocks, n) numbers of samples."""
        return np.arange(self.samples // n * n).reshape(-1, n)

    def accuracy(self, rule: str, n: int) -> NDArray[np.float64]:
        """(P,) expected accuracy of the answer that a rule chooses from n samples."""
        blocks = self.blocks(n)
        if rule == BEST:
            chosen = self._best(blocks)
            return np.array(
                [(c[blocks] * share).sum(1).mean() for c, share in zip(self.correct, chosen, strict=True)]
            )
        weights = self.scores[WEIGHTED] if rule == WEIGHTED else np.zeros(self.classes.shape)
        rows = zip(self.classes, self.correct, weights, strict=True)
        return np.array([vote_accuracy(blocks, c, right, w[None])[0] for c, right, w in rows])

    def best_score(self, n: int) -> NDArray[np.float64]:
        """(P,) the evaluator's score of the best of n samples."""
        blocks, score = self.blocks(n), np.exp(self.scores[BEST])
        chosen = self._best(blocks)
        return np.array([(s[blocks] * share).sum(1).mean() for s, share in zip(score, chosen, strict=True)])

    def _best(self, blocks: NDArray[np.intp]) -> NDArray[np.float64]:
        """(P, blocks, n) share of each sample in being the best; one without an answer loses to all
        others."""
        floor = np.finfo(float).min
        usable = np.where(self.classes >= 0, np.maximum(self.scores[BEST], floor), -np.inf)[:, blocks]
        leads = usable == usable.max(-1, keepdims=True)
        return leads / leads.sum(-1, keepdims=True)

    def cost(self, rule: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(P,) tokens drawn and read for an answer from n samples."""
        blocks = self.blocks(n)
        chooses = 0.0 if rule == MAJORITY else self.own
        read = np.where(np.isnan(self.read), chooses, self.read)
        drawn, read = (tokens[:, blocks].sum(-1).mean(-1) for tokens in (self.drawn, read))
        return drawn, read


def load_pool(
    name: str,
    together: int,
    folder: Path,
    problems: Mapping[str, Sequence[Any]],
    judge: Grader,
    answer_of: AnswerOf,
    aggregations: Sequence[str],
) -> Pool:
    """A graded pool with the evaluator's scores.

    Args:
        folder: with `samples` and `scores`.
        problems: columns of the gold table, as of `benchmark_gold`.
        aggregations: those of the recipe; each rule takes the one that speaks for it.
    """
    graded = grade_samples(folder / "samples", problems, judge, answer_of)
    logits, offsets = load_step_logits(folder / "scores", graded)
    chosen = {rule: by_preference(rule, aggregations)[0] for rule in (WEIGHTED, BEST)}
    scores = {
        rule: log_solution_scores(logits, offsets, AGGREGATIONS.load(word)).reshape(graded.correct.shape)
        for rule, word in chosen.items()
    }
    drawn, read = _tokens(folder / "samples", graded)
    return Pool(
        name,
        together,
        graded.problem_ids,
        graded.levels,
        vote_classes(graded.answers, judge, graded.questions),
        graded.correct,
        scores,
        chosen,
        drawn,
        read,
        graded.tokens,
    )


def _tokens(samples: Path, graded: GradedPool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P, M) tokens drawn and read; of independent samples their own, and none."""
    import pyarrow.parquet as pq

    first = next(iter(sorted(samples.glob("part-*.parquet"))))
    if not set(_COSTS) <= set(pq.read_schema(first).names):
        return graded.tokens, np.full(graded.tokens.shape, np.nan)
    rows = read_table(samples, ("problem_id", "sample", *_COSTS))
    rows = rows.sort_by([("problem_id", "ascending"), ("sample", "ascending")])
    drawn, read = (rows[name].to_numpy().astype(np.float64).reshape(graded.correct.shape) for name in _COSTS)
    return drawn, read
