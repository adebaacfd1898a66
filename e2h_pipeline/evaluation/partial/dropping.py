"""Samples dropped at their first token with a signal below a threshold, and their baselines.

A dropped sample has no vote; the tokens behind are saved. Where all samples of a problem would be
dropped, all are kept and none are saved (the paper's rule). Thresholds are 0 for Q (the paper's), and
those that lose given shares of right easy validation solutions; no hard answer chooses one. Beside each
threshold of Q, at as many tokens: samples dropped at random, and samples dropped by the score. And, on
a grid of saved shares, the threshold of each signal that comes nearest to it: a curve. A share may be
out of reach: where a signal says more of the problem than of the sample, it drops all or none of a
problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.early_stop import LOSSES
from e2h_pipeline.reranking.curves import RerankPool, vote_curves
from e2h_pipeline.reranking.draws import random_generator
from e2h_pipeline.rewards.early_stop import threshold_losing
from e2h_pipeline.rewards.kinds.goal_conditioned import UNJUDGED
from e2h_pipeline.rewards.token_values import SCORE, Q

RANDOM = "random"
SAVED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of all tokens that a signal should save: the points of its curve."""
_CANDIDATES = 200  # thresholds among which one that saves a given share is sought


@dataclass(frozen=True)
class Dropped:
    """The effect of dropping samples on P problems of M samples.

    Attributes:
        dropped: (P, M) samples without a vote; none of a problem that would lose all of them.
        saved: (P, M) tokens that would not have been drawn.
    """

    dropped: NDArray[np.bool_]
    saved: NDArray[np.float64]

    @classmethod
    def of(cls, dropped: NDArray[np.bool_], saved: NDArray[Any]) -> Dropped:
        """With the rule for problems that would lose all samples."""
        some = ~dropped.all(axis=1, keepdims=True)
        return cls(dropped & some, np.where(some, saved, 0).astype(float))


@dataclass(frozen=True)
class Running:
    """The lowest value so far of a signal, for samples of a pool, after each token that can drop one.

    Attributes:
        lowest: (judged tokens + samples,) running minima, sample by sample, each behind a first
            value of infinity.
        starts: (samples,) where a sample begins in it.
        lengths: (samples,) tokens of each sample.
    """

    lowest: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def final(self) -> NDArray[np.float32]:
        """(samples,) the lowest value of all."""
        return self.lowest[np.append(self.starts[1:], len(self.lowest)) - 1]

    def effect(self, threshold: float, samples: int) -> Dropped:
        """What a threshold does to problems of that many samples: each sample ends at its first
        token below it."""
        passed = np.add.reduceat(self.lowest >= threshold, self.starts, dtype=np.int64)
        dropped = self.final < threshold
        seen = UNJUDGED + passed  # the first value, infinity, stands for the token that drops
        saved = np.where(dropped, self.lengths - seen, 0)
        return Dropped.of(dropped.reshape(-1, samples), saved.reshape(-1, samples))


def running(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> Running:
    """The running minima of a signal.

    Args:
        values: (all tokens,) sample by sample.
        lengths: (samples,) tokens of each.
    """
    parts, starts, place = [], [], 0
    for own in np.split(values, np.cumsum(lengths)[:-1]):
        starts.append(place)
        part = np.minimum.accumulate(np.append(np.float32(np.inf), own[UNJUDGED:]))
        parts.append(part)
        place += len(part)
    return Running(np.concatenate(parts), np.array(starts, np.int64), lengths)


@dataclass(frozen=True)
class Filter:
    """One way to drop samples.

    Attributes:
        signal: q, score or random.
        chosen: how its threshold was chosen: `paper`, `lose` (a share of right easy validation
            solutions) or `saved` (a share of all tokens, as nearly as it goes).
        at: the share that `lose` or `saved` names; 0 for `paper`.
        as_q: it saves as many tokens as Q did with this choice; else the choice is its own.
        threshold: of the signal; none where samples are dropped at random.
    """

    signal: str
    chosen: str
    at: float
    as_q: bool
    threshold: float | None


def filters(
    right: Mapping[str, NDArray[np.float64]], signals: Mapping[str, Running], samples: int
) -> Iterator[Filter]:
    """All filters of the table; behind each of Q its baselines at as many tokens.

    Args:
        right: `easy_right`.
        signals: of the pool.
        samples: of each problem.
    """
    losing = [
        Filter(signal, "lose", lose, False, threshold_losing(right[signal], lose))
        for signal in (Q, SCORE)
        for lose in LOSSES
        if len(right[signal])
    ]
    reaching = [
        Filter(signal, "saved", share, False, saving(signals[signal], share, samples, right[signal]))
        for signal in (Q, SCORE)
        for share in SAVED
    ]
    for one in (Filter(Q, "paper", 0.0, False, 0.0), *losing, *reaching):
        yield one
        if one.signal == Q and one.threshold is not None:
            effect = signals[Q].effect(one.threshold, samples)
            share = float(effect.saved.sum() / signals[Q].lengths.sum())
            yield Filter(
                SCORE, one.chosen, one.at, True, saving(signals[SCORE], share, samples, right[SCORE])
            )
            yield Filter(RANDOM, one.chosen, one.at, True, None)


def saving(signal: Running, share: float, samples: int, more: NDArray[np.float64]) -> float:
    """The threshold that saves nearest to a share of all tokens, among quantiles of a signal's
    lowest values in the pool, and some others (`more`). No answer of the pool is looked at."""
    final = signal.final[np.isfinite(signal.final)].astype(np.float64)
    places = np.linspace(0, 1, _CANDIDATES)
    # Values of the pool: a number between two of them can end a sample at a later token than either needs.
    candidates = np.unique(np.quantile(np.append(final, more), places, method="nearest"))
    saved = [signal.effect(float(x), samples).saved.sum() / signal.lengths.sum() for x in candidates]
    return float(candidates[int(np.argmin(np.abs(np.array(saved) - share)))])


def drop_at_random(tokens: NDArray[np.int64], share: float, problem_ids: Sequence[str], draw: int) -> Dropped:
    """Whole samples of each problem dropped in random order until a share of its tokens is saved.

    The sample at the boundary is dropped with the probability that makes the share right in the
    mean.

    Args:
        tokens: (P, M) of each sample.
        draw: number of the draw.
    """
    dropped = np.zeros(tokens.shape, bool)
    for p, (own, name) in enumerate(zip(tokens, problem_ids, strict=True)):
        rng = random_generator(draw, "drop", name, 0)
        order = rng.permutation(len(own))
        left = share * own.sum() - np.append(0, np.cumsum(own[order])[:-1])
        dropped[p, order] = rng.random() < left / np.maximum(own[order], 1)
    return Dropped.of(dropped, np.where(dropped, tokens, 0))


def vote(pool: RerankPool, effect: Dropped) -> NDArray[np.float64]:
    """(P,) accuracy of the majority of the samples that are left, tied votes sharing the credit."""
    left = replace(
        pool,
        classes=np.where(effect.dropped, -1, pool.classes),
        correct=pool.correct & ~effect.dropped,
    )
    return vote_curves(left, [pool.samples], draws=1, seed=0)["majority", ""][:, 0]
