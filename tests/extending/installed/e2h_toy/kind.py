"""An evaluator kind: a process reward model trained only on the last labelled step of each
solution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from e2h_pipeline.recipe import Reward
from e2h_pipeline.rewards.kinds.prm import Prm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from e2h_pipeline.rewards.examples import Rows
    from e2h_pipeline.solutions import TextFormat
    from e2h_pipeline.training.batches import Example


class FirstErrorReward(Reward):
    """Its fields in a recipe: `reward: {kind: first_error, steps: 2, training: {...}}`."""

    steps: int = Field(1, ge=1, description="How many labelled steps of a solution count, from the end.")


class FirstError(Prm):
    """The kind `first_error`: of a wrong solution the last label is that of its first error."""

    Options = FirstErrorReward

    def examples(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Mapping[str, Rows],
        options: FirstErrorReward,
        seed: int,
        text: TextFormat,
    ) -> dict[str, list[Example]]:
        """Examples of a PRM, without the earlier labels."""
        last = [{**row, "labels": _last(row["labels"], options.steps)} for row in rows["steps"]]
        return super().examples(tokenizer, {"steps": last}, options, seed, text)


def _last(labels: list[float], count: int) -> list[float]:
    """Keep the last `count` labels; all others become -1."""
    there = [i for i, label in enumerate(labels) if label >= 0]
    return [label if i in there[-count:] else -1.0 for i, label in enumerate(labels)]
