"""Solutions of other people's step benchmarks, in our text format, and one score per step of theirs.

A benchmark gives steps as a list, and a step may hold blank lines, or an answer block, or nothing
at all. Our format ends a step at a blank line. So blank lines inside a step become line breaks, the
answer block at the end stays a segment of its own, and each segment is assigned to the step that it
came from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from e2h_pipeline.solutions import MARKED, TextFormat


@dataclass(frozen=True)
class StepSolution:
    """A solution whose steps somebody has judged.

    Attributes:
        group: what it is reported under: subset, or class of error.
        problem: resampled as one in intervals; all solutions of a problem share it.
        level: None where it is unknown.
        wrong: 0-based indices of the steps judged wrong.
    """

    identity: str
    group: str
    problem: str
    level: int | None
    question: str
    steps: tuple[str, ...]
    wrong: frozenset[int]


def completion_of(steps: Sequence[str], text: TextFormat = MARKED) -> tuple[str, list[list[int]]]:
    """A completion in a text format, and for each step the indices of its segments.

    A step of several blocks has several segments; steps behind an answer marker share one; an empty
    step has none.

    Raises:
        ValueError: all steps are empty.
    """
    blocks: list[str] = []
    owners: list[int] = []
    for index, step in enumerate(steps):
        body, marker, answer = step, "", ""
        if index == len(steps) - 1:
            body, marker, answer = _split_answer(step, text.answer_marker)
        lines = "\n".join(line for line in body.strip().splitlines() if line.strip())
        for block in (lines, marker, answer):
            if block:
                blocks.append(block)
                owners.append(index)
    if not blocks:
        raise ValueError("a solution needs a step with text")
    completion = text.separator.join(blocks)
    stops = [stop for _, stop in text.parse(completion).spans]
    segments: list[list[int]] = [[] for _ in steps]
    end = 0
    for block, owner in zip(blocks, owners, strict=True):
        end += len(block)
        segments[owner].append(bisect_left(stops, end))
        end += len(text.separator)
    return completion, segments


def as_labelled(completion: str, text: TextFormat) -> tuple[str, bool]:
    """A completion in the way in which rows of step labels end, and whether it is finished: without
    an answer block the last step ends like every other, or its end would mark it as the last."""
    finished = text.parse(completion).answer is not None
    return (completion if finished else completion + text.separator), finished


def _split_answer(step: str, marker: str) -> tuple[str, str, str]:
    """Text before an answer block, the marker, and the answer; the last two empty where there is none."""
    lines = step.strip().splitlines()
    at = max((i for i, line in enumerate(lines) if line.strip() == marker), default=None)
    answer = "\n".join(lines[at + 1 :]).strip() if at is not None else ""
    if at is None or not answer:
        return step, "", ""
    return "\n".join(lines[:at]), marker, answer


def per_step(scores: Sequence[float], segments: Sequence[Sequence[int]]) -> list[float]:
    """A score per step of scores per segment.

    A step of several segments has the lowest of their scores, as in ReasonEval. An empty step has
    nothing to judge. It has the score of the step before it, or of the first step with text where
    there is none before.
    """
    found = [min((scores[i] for i in own), default=None) for own in segments]
    last = next(score for score in found if score is not None)
    filled = []
    for score in found:
        last = last if score is None else score
        filled.append(last)
    return filled
