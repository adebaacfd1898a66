"""Judging solutions before they end: by share of tokens seen, and as a filter of the majority vote.

For evaluators that judge after every token (Nath et al. 2024). Two signals are compared: Q, the
cosine of the state with the goal, and the evaluator's own score at that token. With the control
`reward.contrastive_weight=0` that score is the plain model's.

`partial_auroc.parquet`: does a signal put right solutions first, by share of tokens seen and level?

`filter_votes.parquet`: a sample is dropped at its first token with a signal below a threshold, and
has no vote; the tokens behind are saved. Where all samples of a problem would be dropped, all are
kept and none are saved (the paper's rule). Thresholds are 0 for Q (the paper's), and those that
lose given shares of right easy validation solutions; no hard answer chooses one. Tied votes share
the credit, where the paper counts a tie as right. Beside each threshold of Q, at as many tokens:
samples dropped at random, and samples dropped by the score. And, on a grid of saved shares, the
threshold of each signal that comes nearest to it: a curve. A share may be out of
reach: where a signal says more of the problem than of the sample, it drops all or none of a problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.early_stop import LOSSES
from e2h_pipeline.evaluation.graded import GradedPool, PoolFiles, load_graded, vote_classes
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.reranking.curves import RerankPool, vote_curves
from e2h_pipeline.reranking.draws import random_generator
from e2h_pipeline.rewards.early_stop import threshold_losing
from e2h_pipeline.rewards.kinds.goal_conditioned import UNJUDGED
from e2h_pipeline.rewards.token_values import SCORE, Q, TokenValues, token_values
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups
from e2h_pipeline.statistics.ranking import ranking_quality

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.recipe import Evaluation

RANDOM = "random"
SEEN = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of a solution's tokens that have been seen."""
SAVED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of all tokens that a signal should save: the points of its curve."""

_Measures = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
_DRAWS = 16  # of random dropping
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


@dataclass(frozen=True)
class _Measured:
    """A ratio over problems: (problems,) numerators and denominators, of a filter."""

    of: Filter
    metric: str
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def partial_metrics(
    files: PoolFiles, evaluator: Path, outcomes: Path, domain: Domain, evaluation: Evaluation, work: Work
) -> dict[str, Any]:
    """Write `partial_auroc.parquet`, `filter_votes.parquet` and `filter_votes.png`.

    Args:
        evaluator: one that judges tokens.
        outcomes: easy_outcome_labels artifact; its validation part gives the thresholds.

    Returns counts, and the change of the vote on hard levels at the paper's threshold.
    """
    with grader(evaluation.grader) as judge:
        graded = load_graded(files.samples / "data", files.gold, judge, domain.answer_of)
        classes = vote_classes(graded.answers, judge)
    pool = RerankPool(graded.problem_ids, classes, graded.correct, {})
    work.reporter.message(f"{graded.correct.size:,} samples are judged after every token")
    values = token_values(evaluator, _solutions(graded), domain.text)
    right = easy_right(evaluator, outcomes, domain)
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    groups = level_groups(graded.levels, evaluation.easy_levels)
    auroc = list(_auroc_rows(values, graded, groups, bootstrap))
    votes = list(_filter_rows(values, right, pool, groups, bootstrap))
    write_table(work.out / "partial_auroc.parquet", _auroc_table(auroc))
    write_table(work.out / "filter_votes.parquet", _filter_table(votes))
    _plot([row for row in votes if row["levels"] == "all"], work.out / "filter_votes.png")
    return {
        "samples_judged": int(graded.correct.size),
        "right_validation_solutions": len(next(iter(right.values()))),
        "filter_at_paper_threshold": {
            f"{row['levels']} {row['metric']}": [round(row[c], 4) for c in ("value", "ci_low", "ci_high")]
            for row in votes
            if (row["signal"], row["chosen"]) == (Q, "paper") and row["levels"] in ("easy", "hard")
        },
    }


def easy_right(evaluator: Path, outcomes: Path, domain: Domain) -> dict[str, NDArray[np.float64]]:
    """The lowest value of each signal in right easy validation solutions, ascending."""
    columns = ("split", "question", "completion", "finished", "outcome")
    rows = read_table(outcomes / "data.parquet", columns).to_pylist()
    right = [
        (row["question"], row["completion"], row["finished"])
        for row in rows
        if row["split"] == "validation" and row["outcome"] == 1
    ]
    if not right:
        return {Q: np.empty(0), SCORE: np.empty(0)}
    values = token_values(evaluator, right, domain.text)
    lowest = {name: running(signal, values.lengths).final for name, signal in values.signals.items()}
    return {name: np.sort(found[np.isfinite(found)].astype(np.float64)) for name, found in lowest.items()}


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


def _filter_rows(
    values: TokenValues,
    right: Mapping[str, NDArray[np.float64]],
    pool: RerankPool,
    groups: Mapping[str, NDArray[np.bool_]],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Rows of `filter_votes.parquet`."""
    measured = [
        _Measured(one, metric, sums, counts)
        for one, measures in _filtered(values, right, pool)
        for metric, (sums, counts) in measures.items()
    ]
    for levels, mask in groups.items():
        some = [found for found in measured if found.counts[mask].any()]
        sums = np.stack([found.sums[mask] for found in some], axis=1)
        counts = np.stack([found.counts[mask] for found in some], axis=1)
        drawn = bootstrap.counts(int(mask.sum()))
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high = bootstrap.bounds((drawn @ sums) / (drawn @ counts))
        for i, found in enumerate(some):
            yield {
                **asdict(found.of),
                "metric": found.metric,
                "levels": levels,
                "value": float(sums[:, i].sum() / counts[:, i].sum()),
                "ci_low": float(low[i]),
                "ci_high": float(high[i]),
                "count": int(counts[:, i].sum()),
            }


def _filtered(
    values: TokenValues, right: Mapping[str, NDArray[np.float64]], pool: RerankPool
) -> Iterator[tuple[Filter, _Measures]]:
    """Each filter and its measures."""
    tokens = values.lengths.reshape(pool.correct.shape)
    signals = {name: running(signal, values.lengths) for name, signal in values.signals.items()}
    whole = vote(pool, Dropped(np.zeros(tokens.shape, bool), np.zeros(tokens.shape)))
    # Of the last filter by Q, which its baselines are compared with:
    saved = changes = np.empty(0)
    for one in filters(right, signals, pool.samples):
        if one.threshold is None:
            share = float(saved.sum() / tokens.sum())
            effects = [drop_at_random(tokens, share, pool.problem_ids, draw) for draw in range(_DRAWS)]
        else:
            effects = [signals[one.signal].effect(one.threshold, pool.samples)]
        measured = _measures(pool, tokens, effects, whole)
        if one.signal == Q:
            saved, changes = measured["tokens_saved"][0], measured["majority_change"][0]
        elif one.as_q:
            measured["q_over_it"] = (changes - measured["majority_change"][0], np.ones(len(whole)))
        yield one, measured


def _measures(
    pool: RerankPool,
    tokens: NDArray[np.int64],
    effects: Sequence[Dropped],
    whole: NDArray[np.float64],
) -> _Measures:
    """(problems,) numerators and denominators of each measure, as means over the effects."""

    def share(part: Sequence[NDArray[Any]], of: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        return np.mean([x.sum(axis=1) for x in part], axis=0), of.sum(axis=1, dtype=np.float64)

    ones = np.ones(len(whole))
    votes = np.mean([vote(pool, effect) for effect in effects], axis=0)
    measured = {
        "tokens_saved": share([effect.saved for effect in effects], tokens),
        "samples_dropped": share([effect.dropped for effect in effects], np.ones_like(tokens)),
        "right_dropped": share([effect.dropped & pool.correct for effect in effects], pool.correct),
        "wrong_dropped": share([effect.dropped & ~pool.correct for effect in effects], ~pool.correct),
        "majority": (votes, ones),
        "majority_change": (votes - whole, ones),
    }
    return {name: (found[0], found[1]) for name, found in measured.items()}


def _auroc_rows(
    values: TokenValues,
    graded: GradedPool,
    groups: Mapping[str, NDArray[np.bool_]],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Rows of `partial_auroc.parquet`. Solutions without a token are left out."""
    problem = np.repeat(np.arange(len(graded.problem_ids)), graded.samples)
    right, there = graded.correct.reshape(-1), values.lengths > 0
    starts = np.append(0, np.cumsum(values.lengths)[:-1])
    for seen in SEEN:
        at = starts + np.maximum(np.ceil(seen * values.lengths).astype(np.int64), 1) - 1
        for signal, own in values.signals.items():
            for levels, mask in groups.items():
                kept = there & mask[problem]
                found = ranking_quality(own[at[kept]], right[kept], problem[kept], bootstrap)
                for pairs, told in (("all", found.overall), ("within", found.within)):
                    if told is not None:
                        yield {
                            "signal": signal,
                            "seen": seen,
                            "pairs": pairs,
                            "levels": levels,
                            "value": told[0],
                            "ci_low": told[1],
                            "ci_high": told[2],
                            "count": found.count,
                        }


def _solutions(graded: GradedPool) -> list[tuple[str, str, bool]]:
    """Question, completion and whether it is finished, of every sample."""
    questions = [question for question in graded.questions for _ in range(graded.samples)]
    finished = graded.finished.reshape(-1).tolist()
    return list(zip(questions, graded.completions, finished, strict=True))


def _auroc_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per signal, share of tokens seen, kind of pairs and level group."""
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    names = [("signal", pa.string()), ("seen", pa.float64()), ("pairs", pa.string()), ("levels", pa.string())]
    return pa.Table.from_pylist(list(rows), pa.schema([*names, *numbers, ("count", pa.int64())]))


def _filter_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per filter, measure and level group; `count` is the denominator of the measure."""
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    names = [("signal", pa.string()), ("chosen", pa.string()), ("at", pa.float64()), ("as_q", pa.bool_())]
    names += [("threshold", pa.float64()), ("metric", pa.string()), ("levels", pa.string())]
    return pa.Table.from_pylist(list(rows), pa.schema([*names, *numbers, ("count", pa.int64())]))


_LINES = {Q: ("Q", "#0072B2", "o"), SCORE: ("score", "#009E73", "s"), RANDOM: ("at random", "#D55E00", "D")}


def _plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Change of the majority vote over tokens saved: Q, and its baselines at as many tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for signal, (label, color, marker) in _LINES.items():
        baseline = signal != Q
        own = [
            row for row in rows if (row["signal"], row["chosen"], row["as_q"]) == (signal, "saved", baseline)
        ]
        saved = {row["at"]: row["value"] for row in own if row["metric"] == "tokens_saved"}
        change = sorted(
            (row for row in own if row["metric"] == "majority_change"), key=lambda row: saved[row["at"]]
        )
        x = [100 * saved[row["at"]] for row in change]
        axes.plot(x, [100 * row["value"] for row in change], color=color, marker=marker, label=label)
        low, high = ([100 * row[c] for row in change] for c in ("ci_low", "ci_high"))
        axes.vlines(x, low, high, color=color, linewidth=1)
    axes.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlabel="tokens saved, %", ylabel="change of the majority vote, points")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    # Without this, the file holds the version of matplotlib: equal numbers must give equal bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
