"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from e2h_pipeline.generation.engines.protocol import Engine, Request, SamplingOptions
from e2h_pipeline.rl.guards import STEPS_OF_LEVEL
from e2h_pipeline.rl.rollouts import (
    Grade,
    Question,
    Rollout,
    answer_of,
)
from e2h_pipeline.solutions import parse_completion

if TYPE_CHECKING:
    pass


def describe(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """What people and guards watch: rewards, evaluator scores by kind of question, lengths by level, and shares of
    rollouts without an answer, with one step, with a step said twice. What no question was drawn for is left out."""
    return dict(sorted(means(measures(rollout) for rollout in rollouts).items()))


def measures(rollout: Rollout) -> dict[str, float]:
    """What `describe` takes the means of."""
    kind = "hard" if rollout.question.hard else "easy"
    found = {
        f"evaluator_{kind}": rollout.evaluator_score,
        "no_answer": not rollout.answered,
        "tokens": len(rollout.sample.token_ids),
        "steps": rollout.steps,
        "one_step": rollout.steps < 2,
        "repeated_steps": repeats(rollout.sample.completion),
        f"{STEPS_OF_LEVEL}{rollout.question.level}": rollout.steps,
    }
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
    """Mean of each metric over those that have it, which are gone over once."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for metrics in measured:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
            counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


def repeats(completion: str) -> bool:
    """Whether a step is said twice."""
    steps = parse_completion(completion).steps
    return len(set(steps)) < len(steps)


def easy_accuracy(engine: Engine, grade: Grade, validation: Sequence[Question], max_new_tokens: int) -> float:
    """Greedy accuracy on easy validation problems."""
    requests = [Request(q.question, 0, 1) for q in validation]
    drawn = engine.sample(requests, SamplingOptions(0.0, max_new_tokens))
    pairs = [(q.answer, answer_of(samples[0])) for q, samples in zip(validation, drawn, strict=True)]
    right = grade([(gold, answer) for gold, answer in pairs if gold is not None and answer is not None])
    return sum(right) / len(pairs) if pairs else 0.0
