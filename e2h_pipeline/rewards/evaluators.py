"""An evaluator in memory, whatever its kind: what scoring, search, early stop and RL ask for scores.

Most kinds are one causal model with a score per token (`TokenScorer`). A kind that is read in another
way names its reader (`EvaluatorKind.reader`), and its folder says the kind in `kind.json`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.registry import EVALUATOR_READERS
from e2h_pipeline.rewards.scoring import score_solutions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from e2h_pipeline.rewards.scoring import Solution
    from e2h_pipeline.solutions import TextFormat

KIND_FILE = "kind.json"
BATCH_TOKENS = 65536


class Evaluator(ABC):
    """What judges solutions step by step."""

    @property
    @abstractmethod
    def models(self) -> tuple[PreTrainedModel, ...]:
        """Its models, which RL freezes and splits over the ranks."""

    @abstractmethod
    def logits(
        self, solutions: Sequence[Solution], text: TextFormat, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[float]]:
        """Log odds that each segment of each solution is right. Equal solutions are scored once.

        Args:
            text: how the domain writes solutions.
            batch_tokens: upper bound on rows x length of a forward pass.
        """

    def written(self, solutions: Sequence[Solution]) -> list[int] | None:
        """Tokens that it wrote to judge each of the solutions of the last call; None where it only
        reads."""
        return None


@dataclass(frozen=True)
class TokenScorer(Evaluator):
    """One model with a score per token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """See `Evaluator.models`."""
        return (self.model,)

    def logits(
        self, solutions: Sequence[Solution], text: TextFormat, batch_tokens: int = BATCH_TOKENS
    ) -> list[list[float]]:
        """See `Evaluator.logits`."""
        return score_solutions(self.model, self.tokenizer, solutions, batch_tokens, text=text)


def open_evaluator(folder: Path) -> Evaluator:
    """The evaluator of a folder, loaded.

    Raises:
        ValueError: its files do not fit; the message names them.
    """
    told = read_kind(folder)
    if told is None:
        from e2h_pipeline.models.load import load_evaluator

        return TokenScorer(*load_evaluator(folder))
    evaluator: Evaluator = EVALUATOR_READERS.load(told["kind"])(folder, told)
    return evaluator


def read_kind(folder: Path) -> dict[str, Any] | None:
    """What `kind.json` says; None where there is none, as in the folder of one model."""
    file = folder / KIND_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def write_kind(folder: Path, kind: str, told: Mapping[str, Any]) -> None:
    """Say in a folder which kind reads it, and what the reader needs."""
    text = json.dumps({"kind": kind, **told}, indent=1, sort_keys=True)
    (folder / KIND_FILE).write_text(text + "\n", encoding="utf-8")
