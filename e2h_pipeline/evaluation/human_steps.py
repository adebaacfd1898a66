"""Does an evaluator taught on easy steps judge steps that people labelled on hard problems?

Each step with a known label is an item. The evaluator is compared with a baseline that reads no
mathematics: a logistic regression on the position and the length of the step (characters), taught on
the same rows of labels, in the same folds. PRM800K's wrong steps are longer and later than right
ones, so an AUROC of .6 says nothing by itself; the paired difference does.

First errors are named as in ProcessBench, at a threshold that is chosen on easy problems only: out of
fold where the evaluator was trained in folds, else on the validation problems. The baseline has a
threshold of its own, chosen alike. Chance names each step or none with equal probability.

Solutions of problems that trained the evaluator are judged by the folds, or left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.shards import complete_shards, shard_path
from e2h_pipeline.artifacts.tables import read_table, write_table
from e2h_pipeline.evaluation.easy_steps import RIGHT_FROM, EasySteps, Scores, first_wrong, scored_steps
from e2h_pipeline.evaluation.step_benchmarks.human_steps import (
    HumanSolution,
    KnownProblems,
    read_human_steps,
)
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    Threshold,
    first_error_index,
    hits_quality,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import per_step
from e2h_pipeline.evaluation.transfer import measured_auroc, resampling_counts
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.calibration import calibration_error
from e2h_pipeline.statistics.levels import level_array, level_groups
from e2h_pipeline.statistics.logistic import Logistic, fit_logistic
from e2h_pipeline.supervision.rows import UNLABELLED

if TYPE_CHECKING:
    import pyarrow as pa

    from e2h_pipeline.artifacts.work import Work
    from e2h_pipeline.recipe import Evaluation, HumanSteps
    from e2h_pipeline.solutions import TextFormat

HUMAN_STEPS, HUMAN_SOLUTIONS = "human_steps.parquet", "human_solutions.parquet"
EVALUATOR, BASELINE = "evaluator", "length and position"
_CELL = ("source", "judge", "metric", "levels")
_SHARD = 64  # solutions

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """One who judges steps: scores of the items to judge, and a threshold from easy problems."""

    scores: Scores
    threshold: Threshold | None


def judge_human_steps(
    options: HumanSteps,
    evaluator: Path,
    labels: Path,
    problems: Sequence[Path],
    evaluation: Evaluation,
    text: TextFormat,
    work: Work,
) -> dict[str, Any]:
    """Write `human_steps.parquet`, numbers by source and level, and `human_solutions.parquet`, the
    scores behind them.

    Args:
        labels: easy_step_labels artifact.
        problems: artifacts with all questions of the experiment, without answers.

    Returns:
        Counts, thresholds, and the main numbers on hard levels as [value, low, high].
    """
    found, counts = read_human_steps(options, KnownProblems.of(problems), text)
    easy = EasySteps.read(evaluator, labels, text)
    kept = _unseen(found, easy)
    counts["left out: their problem trained the evaluator"] = len(found) - len(kept)
    own = _own_scores(kept, easy, evaluator, text, work)
    baseline, easy_baseline = _baseline(kept, easy, work.seed, text)
    judges = {
        EVALUATOR: Judge(own, easy.threshold(easy.scores)),
        BASELINE: Judge(baseline, easy.threshold(easy_baseline)),
    }
    bootstrap = Bootstrap(evaluation.bootstrap, evaluation.confidence, work.seed)
    rows = list(human_step_rows(kept, judges, evaluation.easy_levels, bootstrap))
    _write(work.out, rows, kept, judges)
    return {
        "counts": counts,
        "thresholds": {
            name: None if judge.threshold is None else round(judge.threshold.value, 4)
            for name, judge in judges.items()
        },
        "easy_f1": {
            name: None if judge.threshold is None else round(judge.threshold.validation_f1, 4)
            for name, judge in judges.items()
        },
        "hard": {
            f"{row['source']} {row['metric']}": [round(row[c], 4) for c in ("value", "ci_low", "ci_high")]
            for row in rows
            if row["levels"] == "hard" and row["judge"] == EVALUATOR
        },
    }


def human_step_rows(
    solutions: Sequence[HumanSolution],
    judges: Mapping[str, Judge],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Numbers of each source, level group and judge; `over`: differences of the evaluator to the
    judge that the row names, on the same resampled problems.

    Published evaluators have AUROC alone: their thresholds are not known.
    """
    for source in dict.fromkeys(s.source for s in solutions):
        places = [i for i, s in enumerate(solutions) if s.source == source]
        part = [solutions[i] for i in places]
        own = {
            name: Judge([judge.scores[i] for i in places], judge.threshold) for name, judge in judges.items()
        }
        named = {name for s in part for name in s.published}
        own |= {name: Judge([s.published[name] for s in part], None) for name in sorted(named)}
        for row in _rows_of_source(part, own, easy_levels, bootstrap):
            yield {"source": source, **row}


def _rows_of_source(
    solutions: Sequence[HumanSolution],
    judges: Mapping[str, Judge],
    easy_levels: Collection[int],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    names, problem = np.unique([s.problem for s in solutions], return_inverse=True)
    levels = np.zeros(len(names), dtype=np.int64)
    levels[problem] = level_array(s.level for s in solutions)
    groups = level_groups(levels, easy_levels)
    steps = _Steps.of(solutions, problem)
    drawn = resampling_counts(groups, bootstrap)
    for group, mask in groups.items():
        number = np.cumsum(mask) - 1
        measured = {
            name: measured_auroc(steps.scores(judge.scores), steps.right, steps.problem, mask, drawn[group])
            for name, judge in judges.items()
        }
        inside = mask[steps.problem]
        for name, found in measured.items():
            if found is not None:
                yield _row(name, "step_auroc", group, found.value, found.resampled, found.count, bootstrap)
        first = measured[EVALUATOR]
        for name, found in measured.items():
            if name != EVALUATOR and first is not None and found is not None:
                difference = first.resampled - found.resampled
                yield _row(
                    name,
                    "step_auroc_over",
                    group,
                    first.value - found.value,
                    difference,
                    first.count,
                    bootstrap,
                )
        scores = np.array(steps.scores(judges[EVALUATOR].scores))[inside]
        if len(scores):
            ece = calibration_error(scores, steps.right[inside], number[steps.problem[inside]], bootstrap)
            yield _told(EVALUATOR, "step_ece", group, ece, len(scores))
        chosen = [i for i, s in enumerate(solutions) if mask[problem[i]] and s.complete]
        yield from _first_errors(
            [solutions[i] for i in chosen],
            {n: Judge([j.scores[i] for i in chosen], j.threshold) for n, j in judges.items() if j.threshold},
            number[problem[chosen]],
            int(mask.sum()),
            group,
            bootstrap,
        )


def _first_errors(
    solutions: Sequence[HumanSolution],
    judges: Mapping[str, Judge],
    problem: NDArray[np.int64],
    problems: int,
    group: str,
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """ProcessBench's three numbers of each judge and of chance, and differences of F1."""
    truth = np.array([first_wrong(s.labels) for s in solutions])
    hits = {"chance": np.array([1 / (len(s.labels) + 1) for s in solutions])}
    for name, judge in judges.items():
        if judge.threshold is not None:
            limit = judge.threshold.value
            named = np.array([first_error_index(scores, limit) for scores in judge.scores])
            hits[name] = (named == truth).astype(float)
    resampled: dict[str, tuple[float, NDArray[np.float64]]] = {}
    for name, values in hits.items():
        quality, f1 = hits_quality(values, truth, problem, problems, bootstrap)
        counts = (quality.erroneous, quality.correct, quality.erroneous + quality.correct)
        for metric, count in zip(("accuracy_erroneous", "accuracy_correct", "f1"), counts, strict=True):
            if (estimate := getattr(quality, metric)) is not None:
                yield _told(name, f"first_error_{metric}", group, estimate, count)
        if quality.f1 is not None and f1 is not None:
            resampled[name] = quality.f1[0], f1
    if EVALUATOR in resampled:
        value, own = resampled[EVALUATOR]
        for name, (other, theirs) in resampled.items():
            if name != EVALUATOR and np.ptp(own - theirs):  # else resampling knows of no uncertainty
                yield _row(
                    name, "first_error_f1_over", group, value - other, own - theirs, len(truth), bootstrap
                )


@dataclass(frozen=True)
class _Steps:
    """The steps with a known label, (steps,) each."""

    place: tuple[tuple[int, int], ...]
    right: NDArray[np.bool_]
    problem: NDArray[np.int64]

    @classmethod
    def of(cls, solutions: Sequence[HumanSolution], problem: NDArray[np.int64]) -> _Steps:
        place = [
            (i, j) for i, s in enumerate(solutions) for j, label in enumerate(s.labels) if label != UNLABELLED
        ]
        right = np.array([solutions[i].labels[j] >= RIGHT_FROM for i, j in place], dtype=bool)
        return cls(tuple(place), right, problem[[i for i, _ in place]])

    def scores(self, scores: Scores) -> NDArray[np.float64]:
        return np.array([scores[i][j] for i, j in self.place])


def _unseen(solutions: Sequence[HumanSolution], easy: EasySteps) -> list[HumanSolution]:
    """Those of problems that did not train the evaluator, or that a fold has judged."""
    trained = {row["problem_id"] for row in easy.train}
    judged = {_identity(row) for row in easy.rows}
    return [s for s in solutions if s.problem not in trained or (s.problem, s.completion) in judged]


def _own_scores(
    solutions: Sequence[HumanSolution], easy: EasySteps, evaluator: Path, text: TextFormat, work: Work
) -> list[list[float]]:
    """The evaluator's probability of each step: of the folds for what trained it."""
    known = {_identity(row): scores for row, scores in zip(easy.rows, easy.scores, strict=True)}
    new = [s for s in solutions if (s.problem, s.completion) not in known]
    scored = _score(new, evaluator, text, work)
    fresh = iter(scored)
    by_segment = [
        known[s.problem, s.completion] if (s.problem, s.completion) in known else next(fresh)
        for s in solutions
    ]
    return [per_step(row, s.segments) for row, s in zip(by_segment, solutions, strict=True)]


def _score(
    solutions: Sequence[HumanSolution], evaluator: Path, text: TextFormat, work: Work
) -> list[list[float]]:
    """Scores in shards that survive a kill; solutions of like length share one."""
    order = sorted(range(len(solutions)), key=lambda i: (-len(solutions[i].completion), i))
    shards = [order[start : start + _SHARD] for start in range(0, len(order), _SHARD)]
    calls = [
        (
            f"steps-{number:05d}",
            (
                evaluator,
                [(solutions[i].question, solutions[i].completion, solutions[i].finished) for i in shard],
                text,
            ),
        )
        for number, shard in enumerate(shards)
    ]
    folder, done = work.folder / "human_steps", Counter[str]()
    size = {name: len(arguments[1]) for name, arguments in calls}

    def count(name: str, made: pa.Table | None) -> None:
        done["all"] += size[name]
        done["reused"] += 0 if made is not None else size[name]
        work.reporter.progress(done["all"], len(solutions), "solutions scored", done["reused"])

    work.reporter.progress(0, len(solutions), "solutions scored")
    complete_shards(folder, calls, score_shard, work.runner, work.reporter, count)
    found: dict[int, list[float]] = {}
    for (name, _), shard in zip(calls, shards, strict=True):
        found |= zip(shard, read_table(shard_path(folder, name))["probabilities"].to_pylist(), strict=True)
    return [found[i] for i in range(len(solutions))]


def score_shard(evaluator: Path, solutions: Sequence[tuple[str, str, bool]], text: TextFormat) -> pa.Table:
    """A row of `probabilities` for each solution."""
    import pyarrow as pa

    scored = pa.array(scored_steps(evaluator, solutions, text), pa.list_(pa.float64()))
    return pa.table({"probabilities": scored})


def _baseline(
    solutions: Sequence[HumanSolution], easy: EasySteps, seed: int, text: TextFormat
) -> tuple[list[list[float]], list[list[float]]]:
    """The baseline's scores of steps to judge, and of the segments of easy rows out of fold."""
    whole = _fit(easy.train, text)
    folds = easy.folds or {}
    others: dict[int, Logistic] = {
        fold: _fit([row for row in easy.train if folds[row["problem_id"]] != fold], text)
        for fold in sorted(set(folds.values()))
    }

    def of_row(row: Row) -> Logistic:
        return others[folds[row["problem_id"]]] if folds else whole

    rows = [of_row(row).probability(_features(row["completion"], text)).tolist() for row in easy.rows]
    known = {_identity(row): scores for row, scores in zip(easy.rows, rows, strict=True)}
    found = [
        known.get((s.problem, s.completion)) or whole.probability(_features(s.completion, text)).tolist()
        for s in solutions
    ]
    return [per_step(row, s.segments) for row, s in zip(found, solutions, strict=True)], rows


def _fit(rows: Sequence[Row], text: TextFormat) -> Logistic:
    features, labels = [], []
    for row in rows:
        for one, label in zip(_features(row["completion"], text), row["labels"], strict=True):
            if label != UNLABELLED:
                features.append(one)
                labels.append(label)
    return fit_logistic(np.array(features), np.array(labels))


def _features(completion: str, text: TextFormat) -> NDArray[np.float64]:
    """Position and length of each segment, and their squares, (segments, 4). Nothing of what follows:
    a labelled solution ends at its first error, so its length would tell."""
    spans = text.parse(completion).spans
    position = np.log1p(np.arange(len(spans)))
    length = np.log1p([stop - start for start, stop in spans])
    return np.stack([position, position**2, length, length**2], axis=1)


def _identity(row: Row) -> tuple[str, str]:
    return row["problem_id"], row["completion"]


def _row(
    judge: str,
    metric: str,
    levels: str,
    value: float,
    resampled: NDArray[np.float64],
    count: int,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    low, high = bootstrap.bounds(resampled[:, None])
    return _told(judge, metric, levels, (value, float(low[0]), float(high[0])), count)


def _told(
    judge: str, metric: str, levels: str, estimate: tuple[float, float, float], count: int
) -> dict[str, Any]:
    value, low, high = estimate
    return {
        "judge": judge,
        "metric": metric,
        "levels": levels,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "count": count,
    }


def _write(
    out: Path,
    rows: Sequence[dict[str, Any]],
    solutions: Sequence[HumanSolution],
    judges: Mapping[str, Judge],
) -> None:
    import pyarrow as pa

    write_table(out / HUMAN_STEPS, pa.Table.from_pylist(list(rows), human_steps_schema()))
    scored = [
        {
            "source": s.source,
            "id": s.identity,
            "problem_id": s.problem,
            "level": s.level,
            "labels": list(s.labels),
            "complete": s.complete,
            "scores": judges[EVALUATOR].scores[i],
            "baseline_scores": judges[BASELINE].scores[i],
        }
        for i, s in enumerate(solutions)
    ]
    texts = [(name, pa.string()) for name in ("source", "id", "problem_id")]
    lists = [(name, pa.list_(pa.float64())) for name in ("labels", "scores", "baseline_scores")]
    schema = pa.schema([*texts, ("level", pa.int64()), ("complete", pa.bool_()), *lists])
    write_table(out / HUMAN_SOLUTIONS, pa.Table.from_pylist(scored, schema))


def pooled_step_rows(by_seed: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Numbers over seeds: the mean, with an interval over seeds and problems.

    The half-width of the seeds' interval (Student) and that over problems, which all seeds share,
    add in quadrature, as in `statistics.seeds`. One seed keeps its interval over problems.

    Args:
        by_seed: rows of `human_steps.parquet` of each seed.
    """
    from scipy.special import stdtrit

    seeds = len(by_seed)
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for rows in by_seed.values():
        for row in rows:
            cells.setdefault(tuple(row[column] for column in _CELL), []).append(row)
    pooled = []
    for found in cells.values():
        if len(found) < seeds:  # a threshold could not be chosen with some seed
            continue
        values = np.array([row["value"] for row in found])
        mean = float(values.mean())
        of_seeds = stdtrit(seeds - 1, 0.975) ** 2 * values.var(ddof=1) / seeds if seeds > 1 else 0.0
        down, up = (
            float(np.hypot(np.mean([abs(row[bound] - row["value"]) for row in found]), of_seeds**0.5))
            for bound in ("ci_low", "ci_high")
        )
        told = {"value": mean, "ci_low": mean - down, "ci_high": mean + up}
        pooled.append({**found[0], **told, "seeds": seeds, "by_seed": values.tolist()})
    return pooled


def human_steps_schema() -> pa.Schema:
    """Columns of `human_steps.parquet`: a number of a judge on a source's solutions of a level group.
    `step_auroc_over` and `first_error_f1_over` are the evaluator's minus the judge's."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("source", "judge", "metric", "levels")]
    numbers = [(name, pa.float64()) for name in ("value", "ci_low", "ci_high")]
    return pa.schema([*texts, *numbers, ("count", pa.int64())])
