"""Solutions of other people's step benchmarks, in our text format, and one score per step of theirs.

A benchmark gives steps as a list, and a step may hold blank lines, or an answer block, or nothing at
all; our format ends a step at a blank line. So blank lines inside a step become line breaks, the
answer block at the end stays a segment of its own, and segments are counted back to their steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.scoring import score_solutions
from e2h_pipeline.solutions import ANSWER_MARKER, SEPARATOR, parse_completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class StepSolution:
    """A solution whose steps somebody has judged.

    Attributes:
        group: what it is reported under: subset, or class of error.
        problem: resampled as one in intervals; all solutions of a problem share it.
        level: 1-5, 0 where there is none.
        wrong: 0-based indices of the steps judged wrong.
    """

    identity: str
    group: str
    problem: str
    level: int
    question: str
    steps: tuple[str, ...]
    wrong: frozenset[int]


def completion_of(steps: Sequence[str]) -> tuple[str, list[list[int]]]:
    """A completion in our format, and for each step the indices of its segments.

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
            body, marker, answer = _split_answer(step)
        lines = "\n".join(line for line in body.strip().splitlines() if line.strip())
        for block in (lines, marker, answer):
            if block:
                blocks.append(block)
                owners.append(index)
    if not blocks:
        raise ValueError("a solution needs a step with text")
    text = SEPARATOR.join(blocks)
    stops = [stop for _, stop in parse_completion(text).spans]
    segments: list[list[int]] = [[] for _ in steps]
    end = 0
    for block, owner in zip(blocks, owners, strict=True):
        end += len(block)
        segments[owner].append(bisect_left(stops, end))
        end += len(SEPARATOR)
    return text, segments


def _split_answer(step: str) -> tuple[str, str, str]:
    """Text before an answer block, the marker, and the answer; the last two empty where there is none."""
    lines = step.strip().splitlines()
    at = max((i for i, line in enumerate(lines) if line.strip() == ANSWER_MARKER), default=None)
    answer = "\n".join(lines[at + 1 :]).strip() if at is not None else ""
    if at is None or not answer:
        return step, "", ""
    return "\n".join(lines[:at]), ANSWER_MARKER, answer


def step_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    solutions: Sequence[StepSolution],
    batch_tokens: int = 65536,
) -> list[list[float]]:
    """Probability that each step is right, for each solution.

    A step of several segments has the lowest of their scores, as in ReasonEval; an empty step adds
    nothing to judge and has the score of the step before it (of the one behind it, at the start).
    """
    texts = [completion_of(solution.steps) for solution in solutions]
    logits = score_solutions(
        model,
        tokenizer,
        [(s.question, text, True) for s, (text, _) in zip(solutions, texts, strict=True)],
        batch_tokens,
    )
    return [
        _per_step(step_probabilities(np.array(row)).tolist(), segments)
        for row, (_, segments) in zip(logits, texts, strict=True)
    ]


def _per_step(scores: Sequence[float], segments: Sequence[Sequence[int]]) -> list[float]:
    found = [min((scores[i] for i in own), default=None) for own in segments]
    last = next(score for score in found if score is not None)
    filled = []
    for score in found:
        last = last if score is None else score
        filled.append(last)
    return filled
