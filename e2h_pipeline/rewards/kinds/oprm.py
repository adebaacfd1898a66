"""Outcome and process reward model: one head, both kinds of labels, a given share of each (paper
section 3.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from e2h_pipeline.rewards.kinds.base import EvaluatorKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.recipe import OprmReward
    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example
    from e2h_pipeline.training.trainer import Objective


class Oprm(EvaluatorKind):
    """A step scorer that has seen outcomes too."""

    reads = ("steps", "outcomes")

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: OprmReward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.examples`."""
        from e2h_pipeline.rewards.examples import outcome_example, step_example

        return {
            "steps": [step_example(tokenizer, row, text) for row in rows["steps"]],
            "outcomes": [outcome_example(tokenizer, row, text, options.tokens) for row in rows["outcomes"]],
        }

    def choose(
        self, examples: dict[str, list[Example]], options: OprmReward, seed: int
    ) -> dict[str, list[Example]]:
        """See `EvaluatorKind.choose`: `outcome_share` of all are outcome examples."""
        steps, outcomes = mixed(examples["steps"], examples["outcomes"], options.outcome_share, seed)
        return {"steps": steps, "outcomes": outcomes}

    def objective(self, options: OprmReward, seed: int) -> Objective:
        """See `EvaluatorKind.objective`."""
        from e2h_pipeline.rewards.kinds.stepwise import step_objective

        return step_objective


def mixed(
    steps: Sequence[Example], outcomes: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Step and outcome examples such that `share` of all are outcome examples.

    The kind with too many examples is subsampled; all of the other are used.
    """
    rng = random.Random(f"mixed/{seed}")
    fewer_steps = min(len(steps), round(len(outcomes) * (1 - share) / share))
    fewer_outcomes = min(len(outcomes), round(len(steps) * share / (1 - share)))
    return rng.sample(list(steps), fewer_steps), rng.sample(list(outcomes), fewer_outcomes)
