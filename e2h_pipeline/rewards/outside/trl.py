r"""Evaluators trained by TRL's PRMTrainer (`tokenize_row`): token classification with two labels.

Tokens are those of the prompt, then of each step and a separator, piece by piece, with the
beginning-of-sequence token before them where the tokenizer has one. The label of a step stands at the
last token of its separator; label 1 is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.outside.layout import Layout, Loaded
from e2h_pipeline.solutions import EncodedSolution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Trl(Layout):
    """Two labels at a separator.

    Attributes:
        separator: `step_separator` of the training.
    """

    def __init__(self, separator: str = "\n") -> None:
        self.separator = separator

    def load(self, folder: Path, others: Sequence[Path]) -> Loaded:
        """See `Layout.load`: `load_evaluator` makes one score of two labels."""
        from e2h_pipeline.models.load import load_evaluator

        return Loaded(*load_evaluator(folder))

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, question: str, steps: Sequence[str]
    ) -> EncodedSolution:
        """See `Layout.encode`."""

        def pieces(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        ids = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        ids += pieces(question)
        ends = []
        for step in steps:
            ids += pieces(step) + pieces(self.separator)
            ends.append(len(ids) - 1)
        return EncodedSolution(tuple(ids), 0, tuple(ends))
