"""What a stage takes on a card: bytes by phase, and by what takes them.

A phase is a time in a stage: drawing, a training pass, an optimizer step. What is held through all
of them (weights, optimizer states) counts in each. The largest phase decides whether a stage fits.

GB are 10^9 bytes. A card sold with 80 GB has 80 x 2^30: the 7% between them are left for CUDA
itself and for gaps between tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2h_pipeline.models.shapes import (
    Meter,
    largest_layer,
    outside_layers,
    weight_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

GB = 10**9
PROMPT_TOKENS = 256  # assumed of a question; MATH's are shorter, but for a few
WEIGHTS, COPIES, OPTIMIZER, CACHE = "weights", "float32 copies", "optimizer", "key-value cache"


@dataclass(frozen=True)
class Cards:
    """The cards that a stage may use.

    Attributes:
        bytes: of one card.
        count: cards of the host.
        accelerator: False where the card is the memory of a host without a GPU.
        ranks: processes that train together, a card each.
        sharded: weights, gradients and optimizer states are split over the ranks (FSDP2).
    """

    bytes: int
    count: int = 1
    accelerator: bool = True
    ranks: int = 1
    sharded: bool = False

    @property
    def shards(self) -> int:
        """Cards over which weights are split."""
        return self.ranks if self.sharded else 1


@dataclass(frozen=True)
class Phase:
    """A time in a stage.

    Attributes:
        items: bytes on a card, by what takes them.
    """

    name: str
    items: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.items.values())


def largest(phases: Iterable[Phase]) -> Phase:
    """The phase that decides whether a stage fits."""
    return max(phases, key=lambda phase: phase.bytes)


def added(*parts: Mapping[str, int]) -> dict[str, int]:
    """The sum of some items, without those of 0 bytes."""
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: sum(part.get(name, 0) for part in parts) for name in names}
    return {name: size for name, size in found.items() if size}


def split(items: Mapping[str, int], cards: int) -> dict[str, int]:
    """Items whose bytes are spread over some cards."""
    return {name: -(-size // cards) for name, size in items.items()}


def unsharded(models: Sequence[PreTrainedModel], cards: Cards) -> dict[str, int]:
    """Weights that are put together during a pass of sharded models: two layers (the one at work,
    and the next), and all that is in no layer. One model is at work at a time."""
    if cards.shards == 1:
        return {}
    return {WEIGHTS: max(2 * largest_layer(model) + outside_layers(model) for model in models)}


def measured(
    models: Sequence[PreTrainedModel], run: Callable[[Meter], Any], gradient_share: float = 1.0
) -> dict[str, int]:
    """What a piece of code adds at its peak to the weights of some models, within `unreal`."""
    with Meter(*models, gradient_share=gradient_share) as meter:
        run(meter)
    return meter.peak


def cache_bytes(model: PreTrainedModel) -> int:
    """Bytes of keys and values per token, of all layers."""
    ids = tokens(1, 8)
    cache = model.base_model(input_ids=ids, use_cache=True).past_key_values
    held = (tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    return sum(held) // ids.numel()


def tokens(rows: int, length: int) -> Tensor:
    """(rows, length) token ids."""
    import torch

    return torch.zeros(rows, length, dtype=torch.long)


def all_weights(*models: PreTrainedModel) -> dict[str, int]:
    """The weights of some models."""
    return {WEIGHTS: sum(map(weight_bytes, models))}
