"""Process reward model: labels of steps at step ends, binary cross-entropy (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import Reward
    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class Prm(EvaluatorKind):
    """A step scorer."""

    reads = ("steps",)

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: Reward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`."""
        from e2h_pipeline.rewards.examples import step_example

        return {"steps": [step_example(tokenizer, row, text) for row in rows["steps"]]}

    def objective(self, options: Any, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""
        from e2h_pipeline.rewards.kinds.stepwise import step_objective

        return step_objective
