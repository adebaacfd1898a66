"""What a supervised training takes on a card (`training.trainer`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.memory import (
    OPTIMIZER,
    Cards,
    Phase,
    added,
    all_weights,
    measured,
    split,
    tokens,
    unsharded,
)
from e2h_pipeline.models.shapes import GRADIENTS, Meter, unreal, weight_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from e2h_pipeline.training.trainer import Settings

Loss = Callable[["PreTrainedModel", "Tensor", "Tensor"], "Tensor"]
"""Model, (rows, length) token ids, and the mask of the same shape, to a number."""


def fitting(
    model: PreTrainedModel, loss: Loss, settings: Settings, example: tuple[int, int], cards: Cards
) -> list[Phase]:
    """The phases of a training. Adam's moments have the number format of the weights.

    Args:
        model: made within `shapes.meta`.
        example: tokens of the longest document, and documents of an example.
    """
    import torch

    examples, passes = settings.micro_batch(cards.ranks)
    longest, documents = example
    learning = weight_bytes(model, learning=True)
    held = split(added(all_weights(model), {OPTIMIZER: 2 * learning}), cards.shards)
    mixed = settings.mixed_precision or (cards.accelerator and model.dtype == torch.float32)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def learn(meter: Meter) -> None:
        if passes > 1:
            meter.keep_gradients()
        ids = tokens(examples * documents, longest)
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            found = loss(model.train(), ids, torch.ones_like(ids))
        found.backward()

    with unreal(model):
        added_by_pass = measured([model], learn, 1 / cards.shards)
    # Without shards, every rank has the buckets in which gradients are exchanged, too.
    buckets = {GRADIENTS: learning} if cards.ranks > 1 and not cards.sharded else {}
    return [Phase("a training pass", added(held, added_by_pass, unsharded([model], cards), buckets))]


def next_token(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The loss of fine-tuning (`taught.TaughtTokens`), as if every position were taught."""
    from e2h_pipeline.training.next_token import next_token_loss

    found: Any = model(input_ids=ids, attention_mask=mask, use_cache=False)
    return next_token_loss(found.logits.float(), ids, 1.0)


def token_scores(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """A loss on a score per token, as evaluators have."""
    found: Any = model(input_ids=ids, attention_mask=mask, use_cache=False)
    total: Tensor = found.logits.float().sum()
    return total
