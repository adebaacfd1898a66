"""The early_stop_metrics stage: what giving samples up on the way saves, and what it costs.

A pool that was drawn whole, with its step scores, tells exactly what a watch (`rewards.watch`) would have done: a
sample is the same under a watch until it is given up, and an evaluator's score of a step does not depend on what
follows. So the pool is replayed for several shares of right easy validation solutions that may be lost, and
accuracies are taken anew with the given-up samples left without an answer.

Drawing fewer samples saves tokens, too: rows `*_fewer_change` tell what the same saving costs that way. Right is a sample
whose answer is right, sound one whose steps are right as well, which only an exact checker can tell (the ladder): to give
up an answer that was come by through a wrong step is what a watch is for. The tokens that the evaluator reads are not
counted. Two things a replay cannot see: a blank line followed by more white space, which some tokenizers
spell otherwise than a blank line alone, and a step whose blank line belongs to a stop string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.evaluation.graded import (
    GradedPool,
    PoolError,
    load_graded,
    load_step_logits,
    vote_classes,
)
from e2h_pipeline.evaluation.judged import solution_score
from e2h_pipeline.evaluation.rerank import sample_pool
from e2h_pipeline.grading.graders import grader
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.reranking.curves import SamplePool, selection_curves, vote_curves
from e2h_pipeline.rewards.early_stop import completed_steps, threshold_losing
from e2h_pipeline.solutions import parse_completion, segment_ends, token_offsets
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.levels import level_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.artifacts.reporter import Reporter
    from e2h_pipeline.recipe import EarlyStop, Evaluation, Problems

LOSSES = (0.001, 0.01, 0.05, 0.1)
"""Shares of right easy validation solutions that may be lost, beside the recipe's own."""

_DRAWS = 64  # subsets behind a vote over fewer samples
_GIVEN_UP = "abandoned"


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
    samples: Path,
    scores: Path,
    gold: Path,
    policy: Path,
    out: Path,
    *,
    right: NDArray[np.float64],
    evaluator: str,
    problems: Problems,
    options: EarlyStop,
    evaluation: Evaluation,
    seed: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write `metrics.parquet` and `early_stop.png`.

    A pool that was drawn under a watch already cannot be replayed: of it, the share given up is told, and no more.

    Args:
        samples: benchmark_samples artifact.
        scores: rerank_scores artifact.
        gold: gold_answers artifact.
        policy: sft_policy artifact, for its tokenizer.
        right: lowest step probabilities of right easy validation solutions, which give the thresholds
            (`rewards.watch.right_lowest_scores`).
        evaluator: who scored: easy_prm, easy_orm, easy_oprm or easy_pairwise.
        problems: recipe section; the ladder has an exact checker.

    Returns:
        Counts, and for each share that may be lost the threshold and the measures over all levels as
        [value, low, high].
    """
    from transformers import AutoTokenizer

    with grader(evaluation.grader) as judge:
        graded = load_graded(samples / "data", gold, judge)
        classes = vote_classes(graded.answers, judge)
    rows = _token_rows(samples / "data")
    thresholds = {lose: threshold_losing(right, lose) for lose in sorted({*LOSSES, options.lose})}
    reasons = np.array(rows["finish_reason"].to_pylist()).reshape(graded.correct.shape)
    whole = not (reasons == "abandoned").any()
    measures: list[_Measure] = []
    if whole:
        name = solution_score(evaluator)
        pool = sample_pool(graded, classes, *load_step_logits(scores / "data", graded), (name,))
        tokenizer = AutoTokenizer.from_pretrained(policy)
        steps = watched_steps(rows, graded, scores / "data", tokenizer, max(thresholds.values()))
        sound = sound_samples(graded) if problems.source == "ladder" else None
        for lose, threshold in thresholds.items():
            kept = replay(steps, threshold, options.every)
            reporter.message(f"replayed: {lose:g} of right easy solutions lost, threshold {threshold:.3g}")
            measures += _measures(pool, sound, steps.tokens, kept, lose, threshold, seed)
    else:
        share = _share("given_up", reasons == "abandoned", np.ones_like(graded.correct))
        measures.append(replace(share, lose=options.lose, threshold=thresholds[options.lose]))
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, seed)
    groups = level_groups(graded.levels, evaluation.easy_levels)
    table = [row for levels, mask in groups.items() for row in _rows(measures, levels, mask, bootstrap)]
    table = [{"evaluator": evaluator, "every": options.every, **row} for row in table]
    write_table(out / "metrics.parquet", _table(table))
    if whole:
        _plot([row for row in table if row["levels"] == "all"], out / "early_stop.png")
    return {
        "grader": judge.version,
        **graded.summary(),
        "every": options.every,
        "replayed": whole,
        "right_validation_solutions": len(right),
        "all_levels": _headline(table),
    }


def watched_steps(
    rows: pa.Table, graded: GradedPool, scores: Path, tokenizer: PreTrainedTokenizerBase, highest: float
) -> WatchedSteps:
    """Steps of the samples of a pool that have one below `highest`; the others are given up at no threshold up to it.

    Args:
        rows: the pool's token_ids and tokens, in the order of `graded`.
        scores: table folder of the rerank_scores artifact.
        tokenizer: the policy's.

    Raises:
        PoolError: the scores are not of these samples.
    """
    logits, offsets = load_step_logits(scores, graded)
    probability = step_probabilities(logits)
    column = rows["token_ids"].combine_chunks()
    ids, starts = column.flatten().to_numpy(), column.offsets.to_numpy()
    low = np.minimum.reduceat(np.append(probability, 1.0), offsets[:-1]) < highest
    known: dict[tuple[str, bytes], list[int]] = {}
    found: list[tuple[int, list[int]]] = []
    for i in np.flatnonzero(low & (np.diff(offsets) > 0)).tolist():
        text, own = graded.completions[i], ids[starts[i] : starts[i + 1]]
        name = (text, own.tobytes())
        if name not in known:
            known[name] = step_ends(tokenizer, own.tolist(), text)
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


def step_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], completion: str) -> list[int]:
    """Tokens of a sample when each step that a watch could see was over.

    Args:
        ids: the sample's tokens, the end-of-sequence token included where it was drawn.
    """
    spelled = ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    spans = parse_completion(completed_steps(completion)).spans
    if not spans:
        return []
    return [end + 1 for end in segment_ends(token_offsets(tokenizer, spelled, completion), spans)]


def replay(steps: WatchedSteps, threshold: float, every: int) -> NDArray[np.int64]:
    """Tokens of each sample that a watch would have had drawn, (S,); fewer than all where it is given up.

    It is given up at the first look, every `every` tokens, at or behind the end of its first step below the
    threshold, unless it has ended by then.
    """
    below = np.flatnonzero(steps.scores < threshold)
    sample, first = np.unique(steps.sample[below], return_index=True)
    kept = steps.tokens.copy()
    look = -(-steps.ends[below[first]] // every) * every
    kept[sample] = np.minimum(kept[sample], look)
    return kept


def sound_samples(graded: GradedPool) -> NDArray[np.bool_]:
    """(P, M) right answers that come of right steps alone, by the ladder's exact checker."""
    from e2h_pipeline.problems.ladder.checker import step_labels

    sound = graded.correct.copy()
    flat = sound.reshape(-1)  # a view
    for i in np.flatnonzero(flat).tolist():
        flat[i] = all(step_labels(graded.questions[i // graded.samples], graded.completions[i]))
    return sound


def _measures(
    pool: SamplePool,
    sound: NDArray[np.bool_] | None,
    tokens: NDArray[np.int64],
    kept: NDArray[np.int64],
    lose: float,
    threshold: float,
    seed: int,
) -> Iterator[_Measure]:
    """What a watch saves, whom it gives up, and what accuracy at N loses by it, or by fewer samples."""
    tokens, kept = tokens.reshape(pool.correct.shape), kept.reshape(pool.correct.shape)
    given_up = kept < tokens
    cut = replace(pool, classes=np.where(given_up, -1, pool.classes), correct=pool.correct & ~given_up)
    fewer = max(1, round(pool.samples * float(kept.sum() / tokens.sum())))
    whole = _accuracies(pool, pool.samples, seed)
    found = [
        _share("tokens_saved", tokens - kept, tokens),
        _share("right_given_up", given_up & pool.correct, pool.correct),
        _share("wrong_given_up", given_up & ~pool.correct, ~pool.correct),
        *([] if sound is None else [_share("sound_given_up", given_up & sound, sound)]),
    ]
    for suffix, values in (
        ("change", _accuracies(cut, pool.samples, seed)),
        ("fewer_change", _accuracies(pool, fewer, seed)),
    ):
        for method, value in values.items():
            found.append(
                _share(f"{method}_{suffix}", (value - whole[method])[:, None], np.ones((len(value), 1)))
            )
    for measure in found:
        yield replace(measure, lose=lose, threshold=threshold)


def _share(metric: str, part: NDArray[Any], whole: NDArray[Any]) -> _Measure:
    """A ratio of sums over (problems, samples)."""
    return _Measure(metric, 0.0, 0.0, part.sum(axis=1, dtype=np.float64), whole.sum(axis=1, dtype=np.float64))


def _accuracies(pool: SamplePool, n: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Method -> (problems,) expected accuracy with n of the samples; exact where n is all of them."""
    curves = vote_curves(pool, [n], draws=_DRAWS, seed=seed) | selection_curves(pool, [n])
    return {method.replace("-", "_"): curve[:, 0] for (method, _), curve in curves.items()}


def _rows(
    measures: Sequence[_Measure], levels: str, mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    """A row per measure that has something to count at these levels, with an interval over problems."""
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
    """Tokens of a pool's samples, in the order of `GradedPool`."""
    columns = ("problem_id", "sample", "token_ids", "tokens", "finish_reason")
    return read_table(samples, columns).sort_by([("problem_id", "ascending"), ("sample", "ascending")])


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """`metrics.parquet`: one row per share that may be lost, measure and level group; `count` is what it is a share
    of: tokens, samples or problems."""
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
    # A fixed metadata set keeps the file's bytes equal for equal numbers.
    figure.savefig(path, dpi=120, metadata={"Software": None})
