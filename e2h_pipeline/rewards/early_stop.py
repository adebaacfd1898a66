"""Early stop: a sample with a step that the evaluator finds wrong need not be drawn to its end.

A solution is judged by its worst step. The lowest step score so far can only fall: once it is below
a threshold, it stays there. While samples are drawn, the evaluator reads the completed steps, and
samples below the threshold are given up. The threshold depends only on easy validation problems: a
chosen share of their *right* solutions would be lost.

Only steps before the answer block count: after it there are no tokens left to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.generation.engines.protocol import Candidate
from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.evaluators import Evaluator, open_evaluator
from e2h_pipeline.solutions import MARKED, TextFormat

if TYPE_CHECKING:
    from e2h_pipeline.recipe import EarlyStop

# Candidates with a remembered verdict, at most. A forgotten one is judged once more.
_REMEMBERED = 1 << 17


def completed_steps(completion: str, text: TextFormat = MARKED) -> str:
    """The completed steps of an unfinished solution: its text up to the last separator, and no
    further than its first answer block."""
    blocks = completion.split(text.separator)[:-1]
    steps = takewhile(lambda block: block.strip() != text.answer_marker, blocks)
    return "".join(block + text.separator for block in steps)


def lowest_scores(
    evaluator: Evaluator,
    solutions: Sequence[tuple[str, str]],
    batch_tokens: int = 65536,
    text: TextFormat = MARKED,
) -> NDArray[np.float64]:
    """Lowest step probability of each (question, `completed_steps`); 1 where there is no step."""
    rows = [(question, steps, False) for question, steps in solutions]
    scored = evaluator.logits(rows, text, batch_tokens)
    return np.array([step_probabilities(np.array(logits)).min(initial=1.0) for logits in scored])


class StepWatch:
    """Gives up samples with a completed step below the threshold
    (`generation.engines.protocol.Watch`).

    The model is loaded at the first look, so a new watch is sent to other processes as a path.
    Decisions depend on the batch only by rounding: scores of one text in two batches differ in the
    last digits.
    """

    def __init__(
        self,
        evaluator: Path,
        threshold: float,
        every: int,
        batch_tokens: int = 65536,
        text: TextFormat = MARKED,
    ) -> None:
        """
        Args:
            evaluator: folder that `open_evaluator` reads.
            threshold: step probability; 0 gives up no samples. See `easy_watch`.
            every: tokens between two looks.
            batch_tokens: upper bound on rows x length of a forward pass of the evaluator.
            text: how the domain writes solutions.
        """
        self.evaluator, self.threshold, self.every = evaluator, threshold, every
        self.batch_tokens, self.text = batch_tokens, text
        self._loaded: Evaluator | None = None
        self._hopeful: dict[tuple[int, int], int] = {}  # (key, index) -> hash of the text last judged

    def hopeless(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Which candidates have a completed step below the threshold.

        A candidate that completed no step since the last look is not scored again.
        """
        steps = [completed_steps(candidate.completion, self.text) for candidate in candidates]
        seen = [hash((c.question, own)) for c, own in zip(candidates, steps, strict=True)]
        changed = [
            i for i, c in enumerate(candidates) if steps[i] and self._hopeful.get((c.key, c.index)) != seen[i]
        ]
        verdicts = [False] * len(candidates)
        if not changed:
            return verdicts
        if self._loaded is None:
            self._loaded = open_evaluator(self.evaluator)
        asked = [(candidates[i].question, steps[i]) for i in changed]
        scores = lowest_scores(self._loaded, asked, self.batch_tokens, self.text)
        for i, lowest in zip(changed, scores, strict=True):
            verdicts[i] = bool(lowest < self.threshold)
            name = (candidates[i].key, candidates[i].index)
            self._hopeful.pop(name, None)  # moved to the end: the oldest are forgotten first
            if not verdicts[i]:
                self._hopeful[name] = seen[i]
        while len(self._hopeful) > _REMEMBERED:
            del self._hopeful[next(iter(self._hopeful))]
        return verdicts


def right_lowest_scores(
    evaluator: Path, labels: Path, text: TextFormat = MARKED, batch_tokens: int = 65536
) -> NDArray[np.float64]:
    """Lowest step probability of each right solution in the validation part of an easy_step_labels
    artifact, ascending.

    A solution is right where all its segments are labelled and none is wrong; soft labels count as
    wrong below one half.
    """
    rows = read_table(labels / "data.parquet", ("split", "question", "completion", "labels")).to_pylist()
    right = [
        (row["question"], completed_steps(row["completion"], text))
        for row in rows
        if row["split"] == "validation" and row["labels"] and min(row["labels"]) >= 0.5
    ]
    if not right:
        return np.empty(0)
    return np.sort(lowest_scores(open_evaluator(evaluator), right, batch_tokens, text))


def threshold_losing(right: NDArray[np.float64], lose: float) -> float:
    """The highest threshold with at most a share `lose` of the right solutions below it.

    With n right solutions the share moves in steps of 1 / n: a smaller share gives the lowest of
    the n scores.

    Args:
        right: (n,) lowest step probability of right solutions, ascending.
        lose: share, below 1.

    Returns:
        A step probability; without right solutions 0, which gives up no samples.
    """
    return float(right[int(lose * len(right))]) if len(right) else 0.0


def easy_watch(evaluator: Path, labels: Path, options: EarlyStop, text: TextFormat = MARKED) -> StepWatch:
    """The watch of a recipe, with the evaluator's threshold from easy validation.

    Args:
        labels: easy_step_labels artifact.
        text: how the domain writes solutions.
    """
    threshold = threshold_losing(right_lowest_scores(evaluator, labels, text), options.lose)
    return StepWatch(evaluator, threshold, options.every, text=text)
