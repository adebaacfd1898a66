"""The rl_audit stage: what reinforcement learning does to answers that it never saw.

The trainer sees the evaluator's score, and gold answers of easy questions. This stage compares its
rollouts with the gold answers of hard questions as well, after the training. Nothing is fed back.
Gold accuracy and evaluator score over the square root of the KL to the SFT policy is the plot of
Gao, Schulman and Hilton (2023), "Scaling laws for reward model over-optimization". Where the two
curves part, the policy has learned the evaluator's mistakes.

One update has too few rollouts for an estimate. So updates are joined, in order, into at most
`WINDOWS` windows whose lengths differ by one update at most. Rollouts of a problem are not
independent: intervals come from a bootstrap over problems, and all windows share its draws. KL is
estimated per rollout, from its own tokens. It can be below zero where the policy has hardly moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import PoolError
from e2h_pipeline.grading.sharded import sharded_grader
from e2h_pipeline.grading.verdicts import Gold, Grader, Verdict, decide
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import is_single_level, level_array, level_groups

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import Evaluation

WINDOWS = 20
"""Points of a curve: as many as a reader can tell apart in a plot."""
PARTS = 5
"""Parts of a run that are compared for the verdict: fewer than windows, because larger parts have less noise."""

_COLUMNS = (
    "update",
    "problem_id",
    "level",
    "right",
    "answer",
    "evaluator_score",
    "reward",
    "kl",
    "steps",
    "tokens",
)
_MEANS = ("reward", "kl", "no_answer", "steps", "tokens")  # shown without intervals


@dataclass(frozen=True)
class GradedRollouts:
    """R rollouts in the order of the table.

    Attributes:
        values: name -> (R,) gold_accuracy, evaluator_score and `_MEANS`; nan where there is none.
        problems: (R,) whose rollout it is: an index into all problems.
        undecided: distinct (gold, answer) pairs the grader gave up on; they count as wrong.
    """

    updates: NDArray[np.int64]
    levels: NDArray[np.int64]
    problems: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    undecided: int


@dataclass(frozen=True)
class Curves:
    """Estimates of one level group in its W windows.

    Attributes:
        windows: (W,) numbers of the windows that have rollouts of these levels.
        means: name -> (W,)
        drawn: gold_accuracy, evaluator_score and their gap -> (resamples, W) under one bootstrap
            over problems.
        rollouts, problems: (W,)
    """

    windows: NDArray[np.int64]
    means: Mapping[str, NDArray[np.float64]]
    drawn: Mapping[str, NDArray[np.float64]]
    rollouts: NDArray[np.int64]
    problems: NDArray[np.int64]


def rl_audit(
    rollouts: Path, gold: Path, best_update: int, evaluation: Evaluation, work: Work
) -> dict[str, Any]:
    """Write `curves.parquet`, `figures.json` and `over_optimization.png`.

    Args:
        rollouts: table of a policy artifact.
        gold: gold_answers artifact.
        best_update: updates behind the chosen checkpoint; 0 where it is the SFT policy.

    Returns:
        Counts, and the figures of hard levels.

    Raises:
        PoolError: a rollout that neither the trainer nor a gold answer can judge.
    """
    from e2h_pipeline.report.rl_view import over_optimization_png

    with sharded_grader(evaluation.grader, work.folder, work.runner, work.reporter) as judge:
        graded = load_rollouts(rollouts, gold, judge)
    windows, parts = (update_windows(graded.updates, most) for most in (WINDOWS, PARTS))
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    groups = level_groups(graded.levels, evaluation.easy_levels)
    curves = {name: curves_of(graded, windows, mask, bootstrap) for name, mask in groups.items()}
    verdicts_of = {
        name: parting(curves_of(graded, parts, mask, bootstrap), parts, evaluation.confidence)
        for name, mask in groups.items()
    }
    chosen = chosen_window(windows, best_update)
    rows = [row for name, own in curves.items() for row in _rows(name, own, windows, chosen, bootstrap)]
    figures = {
        "updates": int(graded.updates.max()),
        "windows": len(windows),
        "best_update": best_update,
        "levels": {name: {**correlation(own), **verdicts_of[name]} for name, own in curves.items()},
    }
    write_table(work.out / "curves.parquet", _table(rows))
    (work.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    over_optimization_png(rows, work.out / "over_optimization.png")
    _report(rows, work.reporter)
    return {
        "grader": judge.version,
        "rollouts": len(graded.updates),
        "undecided": graded.undecided,
        "windows": len(windows),
        **_headline(rows, figures),
    }


def load_rollouts(rollouts: Path, gold: Path, judge: Grader) -> GradedRollouts:
    """Read and grade: against the gold answer where there is one, by the trainer's verdict where there is none.

    Raises:
        PoolError: a rollout has neither.
    """
    table = read_table(rollouts, _COLUMNS)
    answers = table["answer"].to_pylist()
    names = table["problem_id"].to_pylist()
    truth = read_table(gold / "data.parquet").to_pylist()
    known = {row["problem_id"]: Gold.of_row(row) for row in truth}
    found, undecided = decide(
        judge,
        [
            (known[p], a) if p in known and a is not None else None
            for p, a in zip(names, answers, strict=True)
        ],
    )

    def is_right(problem: str, verdict: Verdict | None, trainer: bool | None) -> bool:
        if problem in known:
            return verdict is Verdict.EQUAL
        if trainer is None:
            raise PoolError(
                f"{rollouts}: problem {problem} has neither a verdict nor a gold answer in {gold}; make the "
                "policy and gold_answers from one split"
            )
        return trainer

    right = [is_right(*row) for row in zip(names, found, table["right"].to_pylist(), strict=True)]
    measured = {
        name: _numbers(table, name) for name in ("evaluator_score", "reward", "kl", "steps", "tokens")
    }
    _, problems = np.unique(np.array(names, dtype=str), return_inverse=True)
    return GradedRollouts(
        table["update"].to_numpy().astype(np.int64),
        level_array(table["level"].to_pylist()),
        problems,
        {
            "gold_accuracy": np.array(right, dtype=np.float64),
            "no_answer": np.array([answer is None for answer in answers], dtype=np.float64),
            **measured,
        },
        undecided,
    )


def update_windows(updates: NDArray[np.integer], most: int) -> list[tuple[int, int]]:
    """First and last update of each window: those that have rollouts, in order, in as equal parts as can be."""
    there = np.unique(updates)
    parts = np.array_split(there, min(most, len(there)))
    return [(int(part[0]), int(part[-1])) for part in parts]


def chosen_window(windows: Sequence[tuple[int, int]], best_update: int) -> int:
    """Number of the window whose rollouts the chosen checkpoint drew: those of the update after it, or the last."""
    return next((i for i, (_, last) in enumerate(windows) if last > best_update), len(windows) - 1)


def curves_of(
    graded: GradedRollouts,
    windows: Sequence[tuple[int, int]],
    mask: NDArray[np.bool_],
    bootstrap: Bootstrap,
) -> Curves:
    """Means in each window over the rollouts in `mask`, and the same under a bootstrap over problems."""
    lasts = np.array([last for _, last in windows])
    window = np.searchsorted(lasts, graded.updates[mask])
    there, window = np.unique(window, return_inverse=True)
    names, problem = np.unique(graded.problems[mask], return_inverse=True)
    shape = (len(names), len(there))

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(R,) to (problems, windows)."""
        found = np.zeros(shape)
        np.add.at(found, (problem, window), values)
        return found

    totals, counts = {}, {}
    for name, values in graded.values.items():
        own = values[mask]
        counted = ~np.isnan(own)
        totals[name], counts[name] = sums(np.where(counted, own, 0.0)), sums(counted.astype(np.float64))
    rollouts = counts["gold_accuracy"]
    again = bootstrap.counts(len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {name: totals[name].sum(axis=0) / counts[name].sum(axis=0) for name in totals}
        weight = again @ rollouts
        drawn = {name: again @ totals[name] / weight for name in ("gold_accuracy", "evaluator_score")}
    for found in (means, drawn):
        found["gap"] = found["evaluator_score"] - found["gold_accuracy"]
    return Curves(
        there,
        means,
        drawn,
        rollouts.sum(axis=0).astype(np.int64),
        (rollouts > 0).sum(axis=0).astype(np.int64),
    )


def correlation(curves: Curves) -> dict[str, Any]:
    """Spearman's correlation of evaluator score and gold accuracy over windows, as of `rank_correlation`."""
    gold, evaluator = (curves.means[name] for name in ("gold_accuracy", "evaluator_score"))
    return {"windows": len(gold), "spearman": rank_correlation(gold, evaluator)}


def parting(curves: Curves, parts: Sequence[tuple[int, int]], confidence: float) -> dict[str, Any]:
    """Whether gold accuracy fell while the evaluator's score rose.

    Returns:
        Also the updates of the part where gold was best, and of the first part where it had fallen;
        None where it did not.
    """
    found = first_parting(
        curves.means["gold_accuracy"],
        curves.means["evaluator_score"],
        curves.drawn["gold_accuracy"],
        curves.drawn["evaluator_score"],
        confidence,
    )
    at = [list(parts[curves.windows[i]]) for i in found] if found else [None, None]
    return {"over_optimized": found is not None, "best_updates": at[0], "worse_updates": at[1]}


def first_parting(
    gold: NDArray[np.float64],
    evaluator: NDArray[np.float64],
    gold_drawn: NDArray[np.float64],
    evaluator_drawn: NDArray[np.float64],
    confidence: float,
) -> tuple[int, int] | None:
    """The first window where gold is below its earlier best, and the evaluator above its own value at that best.

    The best of several windows is partly luck. So both changes must be larger than the largest
    change that noise alone makes between any two windows of a flat curve, in `confidence` of all
    resamples.

    Args:
        gold, evaluator: (W,) estimates.
        gold_drawn, evaluator_drawn: (resamples, W) the same, resampled.

    Returns:
        (best window, the window in question), or None.
    """
    fall = np.quantile(_largest_fall(gold_drawn - gold), confidence)
    rise = np.quantile(_largest_fall(evaluator - evaluator_drawn), confidence)
    for i in range(1, len(gold)):
        best = int(gold[:i].argmax())
        if gold[best] - gold[i] > fall and evaluator[i] - evaluator[best] > rise:
            return best, i
    return None


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's, ties sharing their rank; None below three points and where one is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _largest_fall(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resamples,) from any window to a later one. A window does not count where the resample has none of its problems."""
    noise = np.nan_to_num(noise)
    return (np.maximum.accumulate(noise, axis=1) - noise).max(axis=1)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column, nan where it is null."""
    import pyarrow as pa

    return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)


def _rows(
    levels: str, curves: Curves, windows: Sequence[tuple[int, int]], chosen: int, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    bounds = {name: bootstrap.bounds(drawn) for name, drawn in curves.drawn.items()}
    rows = []
    for i, window in enumerate(curves.windows.tolist()):
        row: dict[str, Any] = {
            "levels": levels,
            "first_update": windows[window][0],
            "last_update": windows[window][1],
            "chosen": window == chosen,
            "rollouts": int(curves.rollouts[i]),
            "problems": int(curves.problems[i]),
        }
        for name, (low, high) in bounds.items():
            row |= {
                name: float(curves.means[name][i]),
                f"{name}_low": float(low[i]),
                f"{name}_high": float(high[i]),
            }
        for name in _MEANS:
            value = float(curves.means[name][i])
            row[name] = None if np.isnan(value) else value
        rows.append(row)
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """`curves.parquet`: one row per level group and window."""
    import pyarrow as pa

    whole = ("first_update", "last_update", "rollouts", "problems")
    types = {"levels": pa.string(), "chosen": pa.bool_(), **dict.fromkeys(whole, pa.int64())}
    return pa.Table.from_pylist(
        list(rows), pa.schema([(name, types.get(name, pa.float64())) for name in rows[0]])
    )


def _report(rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """Log a point for each window, at its last update."""
    for row in sorted(rows, key=lambda row: row["last_update"]):
        group = f"level_{row['levels']}" if is_single_level(row["levels"]) else row["levels"]
        shown = {name: row[name] for name in ("gold_accuracy", "evaluator_score", "gap", "kl")}
        reporter.metrics(
            {f"{name}/{group}": value for name, value in shown.items() if value is not None},
            row["last_update"],
        )


def _headline(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of hard levels (of all, where no hard question was drawn), for manifests and the Dagster page."""
    group = "hard" if "hard" in figures["levels"] else "all"
    own = [row for row in rows if row["levels"] == group]
    moments = [("first", own[0]), *(("chosen", row) for row in own if row["chosen"]), ("last", own[-1])]
    numbers = {
        f"{name}_{group}_{moment}": round(row[name], 4)
        for moment, row in moments
        for name in ("gold_accuracy", "evaluator_score", "gap")
    }
    found = figures["levels"][group]
    spearman = {} if found["spearman"] is None else {f"spearman_{group}": round(found["spearman"], 4)}
    told = {name: found[name] for name in ("over_optimized", "best_updates", "worse_updates")}
    return {**numbers, **spearman, **told}
