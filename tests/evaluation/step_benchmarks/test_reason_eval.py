"""Published step judgements, recomputed from stored evaluator scores (ReasonEval, Xia et al. 2024).

The MR-MATH files hold the step scores of Math-Shepherd-Mistral-7B and of three ReasonEval models,
as released by their authors. `prm_score` computes macro-F1 over right and wrong items, `auroc` the
AUC. Rules as in the authors' evaluation script: validity = 1 - p(negative) above 0.5, redundancy =
p(neutral) below 0.15, a step of several lines has its lowest score, steps after the first error do
not count. Numbers have three digits, as printed by that script.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2h_pipeline.evaluation.step_benchmarks.prm_bench import confusion, prm_score
from e2h_pipeline.evaluation.step_benchmarks.process_bench import (
    NO_ERROR,
    first_error_index,
    first_error_quality,
)
from e2h_pipeline.problems.jsonl import read_jsonl
from e2h_pipeline.statistics.bootstrap import Bootstrap
from e2h_pipeline.statistics.ranking import auroc

SHEPHERD = "math-shepherd_mistral-7b"

# evaluator -> solution F1, solution AUC, step F1, step AUC
INVALID = {
    SHEPHERD: (0.701, 0.773, 0.600, 0.772),
    "reasoneval_mistral-7b": (0.780, 0.851, 0.686, 0.857),
    "reasoneval_wizardmath-7b-v1.1": (0.786, 0.875, 0.739, 0.895),
    "reasoneval_llemma-34b": (0.796, 0.908, 0.775, 0.928),
}
REDUNDANT = {
    SHEPHERD: (0.504, 0.545, 0.427, 0.530),
    "reasoneval_mistral-7b": (0.607, 0.634, 0.597, 0.709),
    "reasoneval_wizardmath-7b-v1.1": (0.616, 0.648, 0.597, 0.722),
    "reasoneval_llemma-34b": (0.583, 0.627, 0.575, 0.673),
}

Judged = list[
    tuple[list[float], frozenset[int]]
]  # scores of the steps that count, and which of them are wrong


def _validity(row: dict[str, Any], model: str) -> list[float]:
    """One score per step: the lowest of its lines."""
    raw = [x if model == SHEPHERD else x[1] + x[2] for x in row["prm_scores"][model]]
    lines = iter(raw)
    found = [min(next(lines) for _ in step) for step in row["model_output_step_format"]]
    assert next(lines, None) is None
    return found


def _first_error(row: dict[str, Any]) -> int:
    step = row["model_output_solution_first_error_step"]
    return NO_ERROR if step == "N/A" else int(step) - 1


def _invalid(rows: list[dict[str, Any]], model: str) -> tuple[Judged, Judged]:
    steps, solutions = [], []
    for row in rows:
        scores, error = _validity(row, model), _first_error(row)
        wrong = frozenset() if error == NO_ERROR else frozenset({error})
        steps.append((scores[: error + 1] if wrong else scores, wrong))
        solutions.append(([min(scores)], frozenset({0}) if wrong else frozenset()))
    return solutions, steps


def _redundant(rows: list[dict[str, Any]], model: str) -> tuple[Judged, Judged]:
    steps, solutions = [], []
    for row in rows:
        scores = [x if model == SHEPHERD else -x[1] for x in row["prm_scores"][model]]
        wrong = frozenset(i for i, rating in enumerate(row["rating"]) if rating == 0)
        steps.append((scores, wrong))
        solutions.append(([min(scores)], frozenset({0}) if wrong else frozenset()))
    return solutions, steps


def _numbers(judged: Judged, threshold: float) -> tuple[float, float]:
    counts = np.sum([confusion(scores, wrong, threshold) for scores, wrong in judged], axis=0)
    scores = np.array([s for row, _ in judged for s in row])
    right = np.array([i not in wrong for row, wrong in judged for i in range(len(row))])
    area = auroc(scores, right)
    assert area is not None
    return float(prm_score(counts)), area


@pytest.mark.parametrize("model", INVALID)
def test_invalid_steps(data_dir: Path, model: str) -> None:
    rows = [row for _, row in read_jsonl(data_dir / "steps" / "mr-math_invalid_errors.jsonl.gz")]
    assert len(rows) == 159
    solutions, steps = _invalid(rows, model)
    found = (*_numbers(solutions, 0.5), *_numbers(steps, 0.5))
    assert found == pytest.approx(INVALID[model], abs=5e-4)


@pytest.mark.parametrize("model", REDUNDANT)
def test_redundant_steps(data_dir: Path, model: str) -> None:
    rows = [row for _, row in read_jsonl(data_dir / "steps" / "mr-math_redundant_errors.jsonl.gz")]
    assert len(rows) == 300
    threshold = 0.5 if model == SHEPHERD else -0.15
    solutions, steps = _redundant(rows, model)
    found = (*_numbers(solutions, threshold), *_numbers(steps, threshold))
    assert found == pytest.approx(REDUNDANT[model], abs=5e-4)


def test_first_error_f1_orders_the_evaluators_alike(data_dir: Path) -> None:
    """ProcessBench's measure on the same solutions. There are no published values, so only the
    order is tested."""
    rows = [row for _, row in read_jsonl(data_dir / "steps" / "mr-math_invalid_errors.jsonl.gz")]
    truth = np.array([_first_error(row) for row in rows])
    problems = np.array([row["question"] for row in rows])
    f1 = {}
    for model in INVALID:
        named = np.array([first_error_index(_validity(row, model), 0.5) for row in rows])
        quality = first_error_quality(named, truth, problems, Bootstrap(200))
        assert (quality.erroneous, quality.correct) == (83, 76) and quality.f1 is not None
        f1[model] = quality.f1[0]
    assert f1["reasoneval_llemma-34b"] > f1["reasoneval_mistral-7b"] > f1[SHEPHERD] > 0
