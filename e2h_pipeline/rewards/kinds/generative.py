"""An evaluator that writes its verdict: the score of a step is the probability of the word for "right".

Such evaluators are called generative (Zhang et al. 2024, arXiv 2408.15240): the language-model head
judges, so what pretraining has seen of marked work is used as it is, and a critique may come before the
verdict. Taught on step labels, written as verdicts (`rewards.generative`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import GenerativeReward
    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example


class Generative(EvaluatorKind):
    """A step scorer that is a language model. Its maker has the loss: the verdicts are known with the
    tokenizer only."""

    reads = ("steps",)
    maker = "e2h_pipeline.rewards.generative.trained:train_generative"
    reader = "e2h_pipeline.rewards.generative.reader:open_generative"

    def sources(self, options: GenerativeReward) -> Sequence[str]:
        """See `EvaluatorKind.sources`: the file of the prompt."""
        from e2h_pipeline.rewards.generative.prompt import prompt_file

        return (str(prompt_file(options.prompt)),)

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: GenerativeReward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`: labels stand where a verdict is predicted."""
        from e2h_pipeline.rewards.generative.prompt import Asked, read_prompt

        asked = Asked.of(read_prompt(options.prompt), tokenizer, text)
        return {"steps": [asked.example(row) for row in rows["steps"]]}
