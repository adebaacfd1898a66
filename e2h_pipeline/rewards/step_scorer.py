"""An evaluator as the scorer of a search (`generation.search.protocol.Scorer`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2h_pipeline.reranking.aggregate import step_probabilities
from e2h_pipeline.rewards.evaluators import Evaluator, open_evaluator
from e2h_pipeline.solutions import TextFormat


@dataclass(frozen=True)
class StepScorer:
    """Step probabilities by an evaluator. It is sent to other processes as a path, and loads the
    model at the first call in a process.

    Attributes:
        evaluator: folder that `open_evaluator` reads.
        text: how the domain writes solutions.
        batch_tokens: upper bound on rows x length of a forward pass.
    """

    evaluator: Path
    text: TextFormat
    batch_tokens: int = 65536

    def step_probabilities(self, solutions: Sequence[tuple[str, str, bool]]) -> list[NDArray[np.float64]]:
        """See `Scorer`."""
        scored = _evaluator(self.evaluator).logits(solutions, self.text, self.batch_tokens)
        return [step_probabilities(np.array(logits)) for logits in scored]

    def close(self) -> None:
        """See `Scorer`."""
        _evaluator.cache_clear()


@lru_cache(maxsize=1)
def _evaluator(folder: Path) -> Evaluator:
    return open_evaluator(folder)
