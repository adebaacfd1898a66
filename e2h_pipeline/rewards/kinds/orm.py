"""Outcome reward model: whether the answer is right, on every or the last token of a solution
(Cobbe et al. 2021; paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import OrmReward
    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class Orm(EvaluatorKind):
    """A scorer of whole solutions."""

    reads = ("outcomes",)
    solution_aggregation = "last"

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: OrmReward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`."""
        from e2h_pipeline.rewards.examples import outcome_example

        return {
            "outcomes": [outcome_example(tokenizer, row, text, options.tokens) for row in rows["outcomes"]]
        }

    def objective(self, options: OrmReward, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""
        from e2h_pipeline.rewards.kinds.stepwise import step_objective

        return step_objective
