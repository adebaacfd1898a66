"""The exact checker of steps."""

from __future__ import annotations

from e2h_toy.domain import TEXT


def letter_labels(question: str, completion: str) -> list[int]:
    """1 for each right letter, 0 for the first wrong one, -1 after it. The answer is the last
    segment."""
    backwards = question.strip()[::-1]
    solution = TEXT.parse(completion)
    labels = [int(i < len(backwards) and step == backwards[i]) for i, step in enumerate(solution.steps)]
    if len(solution.spans) > len(solution.steps):
        labels.append(int(solution.answer == backwards and len(solution.steps) == len(backwards)))
    first_error = labels.index(0) if 0 in labels else len(labels)
    return [label if i <= first_error else -1 for i, label in enumerate(labels)]
