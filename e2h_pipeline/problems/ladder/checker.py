"""TODO: docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2h_pipeline.problems.ladder.world import parse_question
from e2h_pipeline.solutions import (
    parse_completion,
)

if TYPE_CHECKING:
    pass


def step_labels(question: str, completion: str) -> list[int]:
    """Exact labels of a completion's segments (its steps, then its answer block if it has one).

    1 is right, 0 is wrong; behind the first error nothing is labelled (-1). A step is right where it
    is the next line of the one right solution; the answer where every step came and it is the result.
    """
    chain = parse_question(question)
    expected = chain.true_steps()
    solution = parse_completion(completion)
    answered = len(solution.spans) > len(solution.steps)
    labels = [int(i < len(expected) and step == expected[i]) for i, step in enumerate(solution.steps)]
    if answered:
        result = expected[-1][-1] if expected else str(chain.start)
        labels.append(int(len(solution.steps) == len(expected) and solution.answer == result))
    first_error = labels.index(0) if 0 in labels else len(labels)
    return [label if i <= first_error else -1 for i, label in enumerate(labels)]
