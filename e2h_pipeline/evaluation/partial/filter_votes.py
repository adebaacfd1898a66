"""`filter_votes.parquet`: what each filter of samples saves, and what it costs the majority vote.

Tied votes share the credit, where the paper counts a tie as right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.partial.dropping import (
    RANDOM,
    Dropped,
    Filter,
    drop_at_random,
    filters,
    running,
    vote,
)
from e2h_pipeline.reranking.curves import RerankPool
from e2h_pipeline.rewards.token_values import SCORE, Q, TokenValues
from e2h_pipeline.statistics.bootstrap import Bootstrap

if TYPE_CHECKING:
    import pyarrow as pa

_Measures = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
_DRAWS = 16  # of random dropping


@dataclass(frozen=True)
class _Measured:
    """A ratio over problems: (problems,) numerators and denominators, of a filter."""

    of: Filter
    metric: str
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def filter_rows(
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


def filter_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per filter, measure and level group; `count` is the denominator of the measure."""
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    names = [("signal", pa.string()), ("chosen", pa.string()), ("at", pa.float64()), ("as_q", pa.bool_())]
    names += [("threshold", pa.float64()), ("metric", pa.string()), ("levels", pa.string())]
    return pa.Table.from_pylist(list(rows), pa.schema([*names, *numbers, ("count", pa.int64())]))


_LINES = {Q: ("Q", "#0072B2", "o"), SCORE: ("score", "#009E73", "s"), RANDOM: ("at random", "#D55E00", "D")}


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
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
