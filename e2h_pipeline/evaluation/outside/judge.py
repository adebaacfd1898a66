"""Any evaluator judged on steps that people labelled: first errors, step AUROC, and the control.

The evaluator names the first wrong step at a threshold. The rule that gave the threshold is part of
every result, because it decides the number:

- a number that was fixed beforehand;
- `easy`: the threshold with the best first-error F1 on the evaluator's own labelled easy solutions,
  which it has not seen (validation problems, or out of fold);
- `oracle`: the threshold that is best on the judged file itself. Others report such sweeps. It has
  seen the answers, so no claim may rest on it.

The control (`length_control`) gets the oracle's threshold always: the comparison favours it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.evaluation.easy_steps import EasySteps, first_wrong
from e2h_pipeline.evaluation.human_steps import BASELINE, EVALUATOR, Judge, human_step_rows
from e2h_pipeline.evaluation.outside.judged_lines import Judged
from e2h_pipeline.evaluation.outside.length_control import length_scores
from e2h_pipeline.evaluation.step_benchmarks.human_steps import HumanSolution
from e2h_pipeline.evaluation.step_benchmarks.prm_bench import prm_bench_rows, prm_score
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    OneClass,
    Threshold,
    choose_threshold,
    first_error_index,
    hits_quality,
)
from e2h_pipeline.evaluation.step_benchmarks.step_solutions import StepSolution
from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.problems.same_problem import same_key
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.supervision.rows import WRONG

RuleName = Literal["fixed", "easy", "oracle"]
TOGETHER, AVERAGE = "all groups", "average"
NOT_FOR_CLAIMS = "chosen on the judged file itself: not allowed for claims"
_SEEN = "left out: their problem trained the evaluator or chose its threshold"
_PRM_BENCH = "prm_bench"
_CANDIDATES = 1000  # thresholds tried for PRMScore


@dataclass(frozen=True)
class Rule:
    """Where the threshold comes from; `value` of a fixed one."""

    name: RuleName
    value: float = 0.5

    def told(self) -> str:
        """The rule in words, for tables."""
        if self.name == "oracle":
            return f"oracle, {NOT_FOR_CLAIMS}"
        return "fixed beforehand" if self.name == "fixed" else "best on easy solutions, judged unseen"


@dataclass(frozen=True)
class JudgeOptions:
    """How a file is judged; `bootstrap` resamples problems."""

    rule: Rule
    easy_levels: Sequence[int]
    bootstrap: Bootstrap


@dataclass(frozen=True)
class JudgeResult:
    """What was judged and by which rule; and the numbers, each with its group, judge and levels."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]


def judge(judged: Judged, options: JudgeOptions, easy: EasySteps | None = None) -> JudgeResult:
    """The numbers of a judged file.

    Args:
        easy: the evaluator's labelled easy solutions. Solutions of their problems are left out.

    Raises:
        ProblemError: nothing is left, or the rule finds no threshold.
    """
    if easy is not None:
        seen = {same_key(row["question"]) for row in (*easy.train, *easy.rows)}
        judged = judged.without(seen, _SEEN)
    if not judged.solutions:
        raise ProblemError("no solution of the file is of a problem that the evaluator has not seen")
    threshold = _threshold(judged, options.rule, easy)
    judges = {EVALUATOR: Judge(judged.scores, threshold)}
    control = length_scores(judged.solutions, judged.lengths, options.bootstrap.seed)
    if control is not None:
        judges[BASELINE] = Judge(control, _oracle(judged, control))
    rows = list(_rows(judged, judges, options))
    limit = judges[BASELINE].threshold if BASELINE in judges else None
    return JudgeResult(
        {
            "format": judged.form,
            "solutions": len(judged.solutions),
            "counts": judged.counts,
            "threshold": {
                "rule": options.rule.name,
                "value": threshold.value,
                "for_claims": options.rule.name != "oracle",
                "told": options.rule.told(),
                "easy_f1": threshold.validation_f1 if options.rule.name == "easy" else None,
            },
            "control": {
                "name": BASELINE,
                "taught_on": "the judged file, by folds of problems",
                "threshold": limit.value if limit else None,
                "threshold_rule": "oracle",
            },
            "seed": options.bootstrap.seed,
            "bootstrap": options.bootstrap.resamples,
            "confidence": options.bootstrap.confidence,
            "easy_levels": list(options.easy_levels),
        },
        rows,
    )


def _rows(judged: Judged, judges: dict[str, Judge], options: JudgeOptions) -> Iterator[dict[str, Any]]:
    """Numbers by group and levels, of all groups together, and the benchmark's headline."""
    groups = list(dict.fromkeys(solution.source for solution in judged.solutions))
    yield from _of_groups(judged, judged.solutions, judges, options)
    if len(groups) > 1:
        whole = [replace(solution, source=TOGETHER) for solution in judged.solutions]
        yield from (row for row in _of_groups(judged, whole, judges, options) if row["levels"] == "all")
    for name, own in judges.items():
        limit = own.threshold
        if limit is None:
            continue
        if judged.form == _PRM_BENCH:
            for row in prm_bench_rows(_steps(judged), own.scores, limit.value, options.bootstrap):
                yield {**row, "judge": name, "levels": "all"}
        elif len(groups) > 1:
            yield from _average(judged.solutions, name, own.scores, limit.value, options.bootstrap)


def _of_groups(
    judged: Judged, solutions: Sequence[HumanSolution], judges: dict[str, Judge], options: JudgeOptions
) -> Iterator[dict[str, Any]]:
    """Numbers by group and levels. Nearly every solution of PRMBench has errors, and its measure is
    another one: first errors are left out there."""
    for row in human_step_rows(solutions, judges, options.easy_levels, options.bootstrap):
        if judged.form != _PRM_BENCH or not row["metric"].startswith("first_error"):
            yield {"group": row.pop("source"), **row}


def _average(
    solutions: Sequence[HumanSolution],
    judge: str,
    scores: Sequence[Sequence[float]],
    threshold: float,
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Mean of F1 over the groups that have one, ProcessBench's headline; its interval draws each group
    by itself."""
    parts: list[tuple[float, NDArray[np.float64]]] = []
    for number, group in enumerate(dict.fromkeys(s.source for s in solutions)):
        places = [i for i, s in enumerate(solutions) if s.source == group and s.complete]
        truth = np.array([first_wrong(solutions[i].labels) for i in places])
        hits = np.array([first_error_index(scores[i], threshold) for i in places]) == truth
        names, problem = np.unique([solutions[i].problem for i in places], return_inverse=True)
        own = replace(bootstrap, seed=bootstrap.seed + number)
        quality, resampled = hits_quality(hits.astype(float), truth, problem, len(names), own)
        if quality.f1 is not None and resampled is not None:
            parts.append((quality.f1[0], resampled))
    if parts:
        low, high = bootstrap.bounds(np.mean([resampled for _, resampled in parts], axis=0)[:, None])
        yield {
            "group": AVERAGE,
            "judge": judge,
            "metric": "first_error_f1",
            "levels": "all",
            "value": float(np.mean([value for value, _ in parts])),
            "ci_low": float(low[0]),
            "ci_high": float(high[0]),
            "count": len(parts),
        }


def _threshold(judged: Judged, rule: Rule, easy: EasySteps | None) -> Threshold:
    if rule.name == "fixed":
        return Threshold(rule.value, float("nan"), 0)
    if rule.name == "easy" and easy is None:
        raise ProblemError("--threshold easy: labelled easy solutions are known of an experiment's key alone")
    found = easy.threshold(easy.scores) if rule.name == "easy" and easy else _oracle(judged, judged.scores)
    if found is None:
        what = "easy solutions" if rule.name == "easy" else "solutions of the file"
        raise ProblemError(f"the {what} are all right or all wrong: no threshold can be chosen; fix one")
    return found


def _oracle(judged: Judged, scores: Sequence[Sequence[float]]) -> Threshold | None:
    """The threshold that is best on the file: by PRMScore on PRMBench, else by first-error F1."""
    if judged.form == _PRM_BENCH:
        return _best_prm_score(_steps(judged), scores)
    whole = [i for i, solution in enumerate(judged.solutions) if solution.complete]
    truth = [first_wrong(judged.solutions[i].labels) for i in whole]
    try:
        return choose_threshold([scores[i] for i in whole], truth)
    except OneClass:
        return None


def _best_prm_score(solutions: Sequence[StepSolution], scores: Sequence[Sequence[float]]) -> Threshold:
    flat = np.concatenate([np.asarray(own, float) for own in scores])
    wrong = np.array(
        [i in s.wrong for s, own in zip(solutions, scores, strict=True) for i in range(len(own))]
    )
    values = np.unique(np.quantile(flat, np.linspace(0, 1, _CANDIDATES)))
    candidates = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2])
    # Steps above each candidate, (candidates,): right ones kept, wrong ones kept.
    above = [
        (~wrong).sum() - np.searchsorted(np.sort(flat[~wrong]), candidates, side="right"),
        wrong.sum() - np.searchsorted(np.sort(flat[wrong]), candidates, side="right"),
    ]
    counts = np.stack([above[0], above[1], wrong.sum() - above[1], (~wrong).sum() - above[0]], axis=1)
    found = prm_score(counts)
    best = int(np.argmax(found))
    return Threshold(float(candidates[best]), float(found[best]), len(solutions))


def _steps(judged: Judged) -> list[StepSolution]:
    """Solutions whose steps are all judged, as PRMBench's score wants them."""
    return [
        StepSolution(
            s.identity,
            s.source,
            s.problem,
            s.level,
            s.question,
            (),
            frozenset(i for i, label in enumerate(s.labels) if label == WRONG),
        )
        for s in judged.solutions
    ]
