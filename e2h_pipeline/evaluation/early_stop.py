"""The early_stop_metrics stage: what giving samples up on the way saves, and what it costs.

A pool that was drawn whole, with its step scores, tells exactly what a watch (`rewards.early_stop`)
would have done. A sample is the same under a watch until it is given up, and an evaluator's score
of a step does not depend on what follows. So the pool is replayed for several shares of right easy
validation solutions that may be lost. Accuracies are then computed again, and samples that were
given up have no answer.

Drawing fewer samples saves tokens, too. The rows `*_fewer_change` say what the same saving costs
that way.

A sample is right where its answer is right, and sound where its steps are right as well. Only the
domain's exact checker of steps can tell, where it has one. A watch should give up a right answer
that a wrong step led to. The tokens that the evaluator reads are not counted. Two things a replay
cannot see: a blank line followed by more white space, which some tokenizers spell otherwise than a
blank line alone, and a step whose blank line belongs to a stop string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.artifacts.work import Work
from e2h_pipeline.evaluation.graded import (
    GradedPool,
    PoolError,
    PoolFiles,
    load_graded,
    load_step_logits,
    vote_classes,
)
from e2h_pipeline.evaluation.judged import solution_score
from e2h_pipeline.evaluation.rerank import rerank_pool
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.reranking.curves import RerankPool, selection_curves, vote_curves
from e2h_pipeline.rewards.early_stop import completed_steps, threshold_losing
from e2h_pipeline.solutions import TextFormat, segment_ends, token_offsets
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.problems.domain import Domain, StepChecker
    from e2h_pipeline.recipe import EarlyStop, Evaluation

LOSSES = (0.001, 0.01, 0.05, 0.1)
"""Shares of right easy validation solutions that may be lost, beside the recipe's own."""

_DRAWS = 64  # subsets behind a vote over fewer samples
_GIVEN_UP = "abandoned"  # finish reason of a sample that a watch gave up


@dataclass(frozen=True)
class Trial:
    """What a pool is replayed with.

    Attributes:
        options: share that may be lost, and tokens between two looks.
        right: (n,) lowest step probabilities of right easy validation solutions, ascending. They
            give the thresholds (`rewards.early_stop.right_lowest_scores`).
        policy: sft_policy artifact, for its tokenizer.
        checker: the domain's, says which steps are right; None where it has none.
    """

    options: EarlyStop
    right: NDArray[np.float64]
    policy: Path
    checker: StepChecker | None = None

    def thresholds(self) -> dict[float, float]:
        """Share of right solutions that may be lost -> step probability below which a sample is given up."""
        losses = sorted({*LOSSES, self.options.lose})
        return {lose: threshold_losing(self.right, lose) for lose in losses}


@dataclass(frozen=True)
class WatchedSteps:
    """Steps of S samples that a watch could have seen before the samples ended, sample by sample.

    Attributes:
        tokens: (S,) tokens drawn of each sample, the end-of-sequence token included.
        scores: (steps,) probability that the step is right.
        ends: (steps,) tokens of the sample when the step was over.
        sample: (steps,) whose step it is, ascending.
    """

    tokens: NDArray[np.int64]
    scores: NDArray[np.float64]
    ends: NDArray[np.int64]
    sample: NDArray[np.int64]


@dataclass(frozen=True)
class _Measure:
    """A ratio over problems: (problems,) numerators and denominators, at a share that may be lost."""

    metric: str
    lose: float
    threshold: float
    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def early_stop_metrics(
    files: PoolFiles, trial: Trial, domain: Domain, evaluation: Evaluation, work: Work
) -> dict[str, Any]:
    """Write `metrics.parquet` and `early_stop.png`.

    A pool that was drawn under a watch cannot be replayed. Its table has the share that was given
    up, and no more.

    Args:
        domain: finds answers and steps.

    Returns:
        Counts, and for each share that may be lost the threshold and the measures over all levels
        as [value, low, high].
    """
    scores = files.scores / "data"
    with grader(evaluation.grader) as judge:
        graded = load_graded(files.samples / "data", files.gold, judge, domain.answer_of)
        classes = vote_classes(graded.answers, judge, graded.questions)
    rows = _token_rows(files.samples / "data")
    given_up = np.array(rows["finish_reason"].to_pylist()).reshape(graded.correct.shape) == _GIVEN_UP
    whole = not given_up.any()
    if whole:
        aggregations = {"score": solution_score(files.kind)}
        pool = rerank_pool(graded, classes, *load_step_logits(scores, graded), aggregations)
        steps = watched_steps(rows, graded, scores, trial, domain.text)
        sound = sound_samples(graded, trial.checker) if trial.checker else None
        measures = list(_replayed(pool, steps, sound, trial, work))
    else:
        measures = [_given_up(given_up, trial)]
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    groups = level_groups(graded.levels, evaluation.easy_levels)
    own = {"evaluator": files.evaluator, "every": trial.options.every}
    table = [
        {**own, **row} for levels, mask in groups.items() for row in _rows(measures, levels, mask, bootstrap)
    ]
    write_table(work.out / "metrics.parquet", _table(table))
    if whole:
        _plot([row for row in table if row["levels"] == "all"], work.out / "early_stop.png")
    return {
        "grader": judge.version,
        **graded.summary(),
        "every": trial.options.every,
        "replayed": whole,
        "right_validation_solutions": len(trial.right),
        "all_levels": _headline(table),
    }


def watched_steps(
    rows: pa.Table, graded: GradedPool, scores: Path, trial: Trial, text: TextFormat
) -> WatchedSteps:
    """Steps of the samples that some threshold of the trial gives up.

    Args:
        rows: the pool's token_ids and tokens, in the order of `graded`.
        scores: table folder of the rerank_scores artifact.
        text: the domain's.

    Raises:
        PoolError: the scores are not of these samples.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trial.policy)
    highest = max(trial.thresholds().values())
    logits, offsets = load_step_logits(scores, graded)
    probability = step_probabilities(logits)
    column = rows["token_ids"].combine_chunks()
    ids, starts = column.flatten().to_numpy(), column.offsets.to_numpy()
    low = np.minimum.reduceat(np.append(probability, 1.0), offsets[:-1]) < highest
    known: dict[tuple[str, bytes], list[int]] = {}
    found: list[tuple[int, list[int]]] = []
    for i in np.flatnonzero(low & (np.diff(offsets) > 0)).tolist():
        completion, own = graded.completions[i], ids[starts[i] : starts[i + 1]]
        name = (completion, own.tobytes())
        if name not in known:
            known[name] = watched_step_ends(tokenizer, own.tolist(), completion, text)
        if len(known[name]) > offsets[i + 1] - offsets[i]:
            raise PoolError(
                f"{scores}: sample {i % graded.samples} of {graded.problem_ids[i // graded.samples]} has fewer "
                "scores than steps; score the pool again"
            )
        found.append((i, known[name]))
    return WatchedSteps(
        rows["tokens"].to_numpy().astype(np.int64),
        np.array([probability[offsets[i] + j] for i, ends in found for j in range(len(ends))], np.float64),
        np.array([end for _, ends in found for end in ends], np.int64),
        np.array([i for i, ends in found for _ in ends], np.int64),
    )


def watched_step_ends(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], completion: str, text: TextFormat
) -> list[int]:
    """Tokens of a sample when each step that a watch could see was over.

    Args:
        tokenizer: the policy's.
        ids: the sample's tokens, the end-of-sequence token included where it was drawn.
        text: the domain's.
    """
    spelled = ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    spans = text.parse(completed_steps(completion, text)).spans
    if not spans:
        return []
    return [end + 1 for end in segment_ends(token_offsets(tokenizer, spelled, completion), spans)]


def replay_watch(steps: WatchedSteps, threshold: float, every: int) -> NDArray[np.int64]:
    """Tokens drawn of each sample under a watch, (S,): fewer than all where it gives the sample up.

    The watch looks every `every` tokens. It gives a sample up at the first look at or behind the
    end of the first step below the threshold, unless the sample has ended by then.
    """
    below = np.flatnonzero(steps.scores < threshold)
    sample, first = np.unique(steps.sample[below], return_index=True)
    kept = steps.tokens.copy()
    look = -(-steps.ends[below[first]] // every) * every
    kept[sample] = np.minimum(kept[sample], look)
    return kept


def sound_samples(graded: GradedPool, checker: StepChecker) -> NDArray[np.bool_]:
    """(P, M) right answers that come of right steps alone."""
    sound = graded.correct.copy()
    flat = sound.reshape(-1)  # a view
    for i in np.flatnonzero(flat).tolist():
        flat[i] = all(checker(graded.questions[i // graded.samples], graded.completions[i]))
    return sound


def _given_up(given_up: NDArray[np.bool_], trial: Trial) -> _Measure:
    """The share that a watch gave up while the pool was drawn."""
    share, lose = _share("given_up", given_up, np.ones_like(given_up)), trial.options.lose
    return replace(share, lose=lose, threshold=trial.thresholds()[lose])


def _replayed(
    pool: RerankPool, steps: WatchedSteps, sound: NDArray[np.bool_] | None, trial: Trial, work: Work
) -> Iterator[_Measure]:
    """Measures at every threshold of the trial."""
    for lose, threshold in trial.thresholds().items():
        kept = replay_watch(steps, threshold, trial.options.every)
        work.reporter.message(f"replayed: {lose:g} of right easy solutions lost, threshold {threshold:.3g}")
        for measure in _measures(pool, sound, steps.tokens, kept, work.seed):
            yield replace(measure, lose=lose, threshold=threshold)


def _measures(
    pool: RerankPool,
    sound: NDArray[np.bool_] | None,
    tokens: NDArray[np.int64],
    kept: NDArray[np.int64],
    seed: int,
) -> Iterator[_Measure]:
    """What a watch saves, which samples it gives up, and the accuracy at N lost by it, or by fewer samples.

    Args:
        sound: (P, M) samples whose steps are all right; None where nobody can tell.
        tokens: (P * M,) tokens drawn of each sample.
        kept: (P * M,) the same under the watch.
    """
    tokens, kept = tokens.reshape(pool.correct.shape), kept.reshape(pool.correct.shape)
    given_up = kept < tokens
    cut = replace(pool, classes=np.where(given_up, -1, pool.classes), correct=pool.correct & ~given_up)
    fewer = max(1, round(pool.samples * float(kept.sum() / tokens.sum())))
    whole = _accuracies(pool, pool.samples, seed)
    yield _share("tokens_saved", tokens - kept, tokens)
    yield _share("right_given_up", given_up & pool.correct, pool.correct)
    yield _share("wrong_given_up", given_up & ~pool.correct, ~pool.correct)
    if sound is not None:
        yield _share("sound_given_up", given_up & sound, sound)
    for suffix, values in (
        ("change", _accuracies(cut, pool.samples, seed)),
        ("fewer_change", _accuracies(pool, fewer, seed)),
    ):
        for method, value in values.items():
            yield _share(f"{method}_{suffix}", (value - whole[method])[:, None], np.ones((len(value), 1)))


def _share(metric: str, part: NDArray[Any], whole: NDArray[Any]) -> _Measure:
    """A ratio of sums over (problems, samples); the threshold is filled in later."""
    return _Measure(metric, 0.0, 0.0, part.sum(axis=1, dtype=np.float64), whole.sum(axis=1, dtype=np.float64))


def _accuracies(pool: RerankPool, n: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Method -> (problems,) expected accuracy with n of the samples; exact where n is all of them."""
    curves = vote_curves(pool, [n], draws=_DRAWS, seed=seed) | selection_curves(pool, [n])
    return {method.replace("-", "_"): curve[:, 0] for (method, _), curve in curves.items()}


def _rows(
    measures: Sequence[_Measure], levels: str, mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    """A row per measure whose denominator is not 0 at these levels, with an interval over problems."""
    some = [m for m in measures if m.counts[mask].any()]
    sums = np.stack([m.sums[mask] for m in some], axis=1)
    counts = np.stack([m.counts[mask] for m in some], axis=1)
    drawn = bootstrap.counts(int(mask.sum()))
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = bootstrap.bounds((drawn @ sums) / (drawn @ counts))
    for i, m in enumerate(some):
        yield {
            "lose": m.lose,
            "threshold": m.threshold,
            "metric": m.metric,
            "levels": levels,
            "value": float(sums[:, i].sum() / counts[:, i].sum()),
            "ci_low": float(low[i]),
            "ci_high": float(high[i]),
            "count": int(counts[:, i].sum()),
        }


def _token_rows(samples: Path) -> pa.Table:
    """Tokens of a pool's samples, in the order of `GradedPool`.

    Raises:
        PoolError: others drew the samples, and their tokens are not known.
    """
    columns = ("problem_id", "sample", "token_ids", "tokens", "finish_reason")
    rows = read_table(samples, columns)
    if rows["token_ids"].null_count:
        raise PoolError(
            f"{samples}: the tokens of samples by others are not known, so stopping them early cannot be"
            " replayed; set samples.source: policy"
        )
    return rows.sort_by([("problem_id", "ascending"), ("sample", "ascending")])


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """`metrics.parquet`: one row per share that may be lost, measure and level group.

    `count` is the denominator of the measure: tokens, samples or problems.
    """
    import pyarrow as pa

    number = pa.float64()
    schema = {
        "evaluator": pa.string(),
        "every": pa.int64(),
        "lose": number,
        "threshold": number,
        "metric": pa.string(),
        "levels": pa.string(),
        "value": number,
        "ci_low": number,
        "ci_high": number,
        "count": pa.int64(),
    }
    return pa.Table.from_pylist(list(rows), pa.schema(schema))


def _headline(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Share that may be lost -> threshold and measures over all levels, for manifests and the Dagster page."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["levels"] == "all":
            own = found.setdefault(f"{row['lose']:g}", {"threshold": round(row["threshold"], 6)})
            own[row["metric"]] = [round(row[c], 4) for c in ("value", "ci_low", "ci_high")]
    return found


_LINES = {
    "majority": ("majority", "#D55E00", "D"),
    "weighted_vote": ("weighted vote", "#0072B2", "o"),
    "best_of_n": ("best of N", "#009E73", "s"),
}


def _plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy change over tokens saved; dashed, what the same saving costs by fewer samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    saved = {row["lose"]: 100 * row["value"] for row in rows if row["metric"] == "tokens_saved"}
    for method, (label, color, marker) in _LINES.items():
        for suffix, line in (("change", "-"), ("fewer_change", "--")):
            points = [row for row in rows if row["metric"] == f"{method}_{suffix}"]
            x = [saved[row["lose"]] for row in points]
            y = [100 * row["value"] for row in points]
            solid = line == "-"
            axes.plot(x, y, line, color=color, marker=marker if solid else "", label=label if solid else None)
            if solid:
                low, high = ([100 * row[c] for row in points] for c in ("ci_low", "ci_high"))
                axes.vlines(x, low, high, color=color, linewidth=1)
    axes.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlabel="tokens saved, %", ylabel="accuracy change, points", title="dashed: fewer samples")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    # Without this, the file holds the version of matplotlib: equal numbers must give equal bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
