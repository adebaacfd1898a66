"""Measures of rollouts for people and guards, and accuracy on easy validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Sampler, SampleRequest, SamplingOptions
from e2h_pipeline.rl.guards import STEPS_OF_LEVEL
from e2h_pipeline.rl.rollouts import Rollout, right_answers

if TYPE_CHECKING:
    from e2h_pipeline.grading.verdicts import Grader
    from e2h_pipeline.problems.domain import Domain
    from e2h_pipeline.rl.questions import Question


def describe(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Mean of each measure that any rollout has, by name."""
    return dict(sorted(means(measures(rollout) for rollout in rollouts).items()))


def measures(rollout: Rollout) -> dict[str, float]:
    """Reward, evaluator's score by kind of question, length, and known vices of policies.

    The vices are no answer, one step or none, a repeated step, and an answer that looks at nothing.
    """
    kind = "hard" if rollout.question.hard else "easy"
    found = {
        f"evaluator_{kind}": rollout.evaluator_score,
        "no_answer": rollout.answer is None,
        "tokens": len(rollout.sample.token_ids),
        "steps": rollout.steps,
        "one_step": rollout.steps < 2,
        "repeated_steps": rollout.repeats_step,
        f"{STEPS_OF_LEVEL}{rollout.question.level}": rollout.steps,
    }
    if rollout.blind is not None:
        found["blind"] = rollout.blind
    if rollout.rewards:
        found["reward"] = sum(rollout.rewards)
    if kind == "easy":
        found["easy_accuracy"] = bool(rollout.right)
    return found


def weighted(measured: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Sum of each metric times its weight."""
    sums: dict[str, float] = {}
    for weight, metrics in measured:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + weight * value
    return sums


def means(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over those that have it, in one pass over the iterable."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for metrics in measured:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
            counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


def easy_accuracy(
    engine: Sampler, validation: Sequence[Question], max_new_tokens: int, grader: Grader, domain: Domain
) -> float:
    """Greedy accuracy on easy validation problems; 0 where there are none."""
    requests = [SampleRequest(q.question, domain.text, 0, 1) for q in validation]
    drawn = engine.sample(requests, SamplingOptions(0.0, max_new_tokens))
    completions = [(q, samples[0]) for q, samples in zip(validation, drawn, strict=True)]
    right = right_answers(completions, grader, domain)
    return sum(map(bool, right)) / len(right) if right else 0.0
