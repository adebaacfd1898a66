"""The ladder's exact step checker: every step has one right form, so a label needs no judgement."""

from __future__ import annotations

from e2h_pipeline.problems.ladder.world import TEXT, parse_question


def step_labels(question: str, completion: str) -> list[int]:
    """Exact labels of a completion's segments (its steps, then its answer block if it has one).

    1 is right, 0 is wrong, and -1 (no label) is whatever follows the first error. A step is right
    if it is the next line of the one right solution. The answer is right if it is the result and no
    step is missing.

    Raises:
        ProblemError: not a question of the ladder.
    """
    chain = parse_question(question)
    expected = chain.true_steps()
    solution = TEXT.parse(completion)
    answered = len(solution.spans) > len(solution.steps)
    labels = [int(i < len(expected) and step == expected[i]) for i, step in enumerate(solution.steps)]
    if answered:
        result = expected[-1][-1] if expected else str(chain.start)
        labels.append(int(len(solution.steps) == len(expected) and solution.answer == result))
    first_error = labels.index(0) if 0 in labels else len(labels)
    return [label if i <= first_error else -1 for i, label in enumerate(labels)]
